"""The registered generators by their names, as the command line and configurations find them (``names.cutpaste``)."""
