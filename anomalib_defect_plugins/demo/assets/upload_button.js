// Gradio 6.31 nests the upload button of a file field that holds files in another button, which assistive technologies
// do not support (axe: nested-interactive). The outer one does nothing, so it becomes a group.
new MutationObserver(() => {
  for (const inner of document.querySelectorAll(".icon-button:not([role]) .upload-container")) {
    const outer = inner.closest(".icon-button");
    outer.setAttribute("role", "group");
    outer.removeAttribute("aria-haspopup");
    outer.tabIndex = -1;
  }
}).observe(document, { childList: true, subtree: true });
