"""What the tabs do, without Gradio."""
