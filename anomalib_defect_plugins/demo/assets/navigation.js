// Navigation between images by buttons, number field and arrow keys. One request at a time: until its answer arrives,
// only the latest position is kept.
const REQUEST_TIMEOUT_MS = 5000;
let filters, position;
let requestedAt = -REQUEST_TIMEOUT_MS;
const comparison = () => element.querySelector("[data-count]");
const request = () => {
  requestedAt = performance.now();
  trigger("navigate", { position });
};
const handleAnswer = () => {
  const current = comparison();
  requestedAt = -REQUEST_TIMEOUT_MS;
  if (!current) return;
  const shown = Number(current.dataset.position);
  if (current.dataset.filters !== filters) [filters, position] = [current.dataset.filters, shown];
  else if (shown !== position) request();
};
const navigate = (target) => {
  const last = Number(comparison()?.dataset.count ?? 0) - 1;
  if (!Number.isInteger(target) || last < 0) return;
  const clamped = Math.min(Math.max(target, 0), last);
  if (clamped === position) return;
  position = clamped;
  if (performance.now() - requestedAt > REQUEST_TIMEOUT_MS) request();
};
const usesArrowKeys = (target) =>
  target.closest?.("input, textarea, select, .scroll, [contenteditable], [role=tab], [role=listbox], [role=slider]");
const isVisible = () => {
  const box = element.getBoundingClientRect();
  return element.offsetParent && box.top < window.innerHeight && box.bottom > 0;
};
element.addEventListener("click", (event) => {
  const button = event.target.closest("[data-target]");
  if (button) navigate(Number(button.dataset.target));
});
element.addEventListener("change", (event) => {
  if (event.target.type === "number") navigate(Math.round(Number(event.target.value)) - 1);
});
document.addEventListener("keydown", (event) => {
  const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
  if (!step || event.altKey || event.ctrlKey || event.metaKey || event.shiftKey) return;
  if (usesArrowKeys(event.target) || !isVisible()) return;
  event.preventDefault();
  navigate(position + step);
});
watch("value", handleAnswer);
handleAnswer();
