// Follows navigation.js: the keys G and B mark the displayed image as good or bad.
document.addEventListener("keydown", (event) => {
  const label = { g: "good", b: "bad" }[event.key.toLowerCase()];
  if (!label || event.altKey || event.ctrlKey || event.metaKey || !comparison() || !isVisible()) return;
  if (event.target.closest?.("input:not([type=range]), textarea, [contenteditable]")) return;
  trigger("mark", { label });
});
