"""What users have in memory, which goes as soon as they close the tab."""

import gradio as gr


def free_when_closed(page: gr.Blocks) -> None:
    """Have a page that is being built free a user's states when the tab is closed; Gradio would wait for an hour.

    The ``delete_callback`` of each state is called.

    Args:
        page: The page.
    """

    async def free(request: gr.Request) -> None:
        # On the server's own thread, where Gradio looks for states that are too old: the two cannot meet.
        states, name = page.state_holder, request.session_hash
        states.delete_state(name)
        states.session_data.pop(name, None)
        states.time_last_used.pop(name, None)

    page.unload(free)
