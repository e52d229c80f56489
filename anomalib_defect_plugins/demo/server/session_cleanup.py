"""Deletion of a user's session state when the tab closes."""

import gradio as gr


def delete_state_on_unload(page: gr.Blocks) -> None:
    """Delete session state when the tab closes; by default Gradio keeps it for an hour.

    The ``delete_callback`` of each state is called.

    Args:
        page: The page, while it is being built.
    """

    async def delete(request: gr.Request) -> None:
        # A coroutine runs on the event loop, as Gradio's own clean-up of expired states does, so the two cannot race.
        holder, session = page.state_holder, request.session_hash
        if session is None:
            return
        holder.delete_state(session)
        holder.session_data.pop(session, None)
        holder.time_last_used.pop(session, None)

    page.unload(delete)
