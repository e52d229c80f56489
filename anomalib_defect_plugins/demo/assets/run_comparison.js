// Buttons, the number and the arrow keys lead from image to image. While an answer is awaited, only the last wish counts.
const PATIENCE = 5000;
let choice, at;
let asked = -PATIENCE;
const shown = () => element.querySelector(".walk");
const ask = () => {
  asked = performance.now();
  trigger("walk", { at });
};
const follow = () => {
  const walk = shown();
  asked = -PATIENCE;
  if (!walk) return;
  const place = Number(walk.dataset.at);
  if (walk.dataset.choice !== choice) [choice, at] = [walk.dataset.choice, place];
  else if (place !== at) ask();
};
const go = (to) => {
  const last = Number(shown()?.dataset.count ?? 0) - 1;
  if (!Number.isInteger(to) || last < 0) return;
  const place = Math.min(Math.max(to, 0), last);
  if (place === at) return;
  at = place;
  if (performance.now() - asked > PATIENCE) ask();
};
const isBusy = (target) =>
  target.closest?.("input, textarea, select, .scroll, [contenteditable], [role=tab], [role=listbox], [role=slider]");
const isSeen = () => {
  const box = element.getBoundingClientRect();
  return element.offsetParent && box.top < window.innerHeight && box.bottom > 0;
};
element.addEventListener("click", (event) => {
  const button = event.target.closest("[data-to]");
  if (button) go(Number(button.dataset.to));
});
element.addEventListener("change", (event) => {
  if (event.target.type === "number") go(Math.round(Number(event.target.value)) - 1);
});
document.addEventListener("keydown", (event) => {
  const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
  if (!step || event.altKey || event.ctrlKey || event.metaKey || event.shiftKey) return;
  if (isBusy(event.target) || !isSeen()) return;
  event.preventDefault();
  go(at + step);
});
watch("value", follow);
follow();
