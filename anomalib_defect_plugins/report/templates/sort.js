// A click on the head of a column sorts by it; cells without a value stay last.
for (const table of document.querySelectorAll("table")) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => {
    if (!head.textContent) return;
    const button = document.createElement("button");
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const descending = head.ariaSort ? head.ariaSort === "ascending" : head.classList.contains("number");
      for (const other of heads) other.removeAttribute("aria-sort");
      head.ariaSort = descending ? "descending" : "ascending";
      const value = (row) => row.cells[column].dataset.value;
      const compare = (a, b) => (isNaN(a) || isNaN(b) ? a.localeCompare(b) : a - b) * (descending ? -1 : 1);
      const rows = [...table.tBodies[0].rows];
      for (const row of rows) row.classList.remove("break");
      rows.sort((a, b) => (value(a) === "") - (value(b) === "") || compare(value(a), value(b)));
      table.tBodies[0].append(...rows);
    });
  });
}
