"""The demo: a Gradio app to browse results, inspect images, train on one photo and synthesise defects.

Importing this package is cheap; ``app`` needs Gradio (``pip install anomalib-defect-plugins[demo]``).
"""
