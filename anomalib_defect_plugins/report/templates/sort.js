// Makes the tables below a root element sortable by a click on a column header; cells without a value stay last.
const makeTablesSortable = (root) => {
  for (const table of root.querySelectorAll("table")) {
    const headers = [...table.tHead.rows[0].cells];
    headers.forEach((header, column) => {
      if (!header.textContent) return;
      const button = document.createElement("button");
      button.append(...header.childNodes);
      header.append(button);
      button.addEventListener("click", () => {
        const descending = header.ariaSort ? header.ariaSort === "ascending" : header.classList.contains("number");
        for (const other of headers) other.removeAttribute("aria-sort");
        header.ariaSort = descending ? "descending" : "ascending";
        const value = (row) => row.cells[column].dataset.value;
        const compare = (a, b) => (isNaN(a) || isNaN(b) ? a.localeCompare(b) : a - b) * (descending ? -1 : 1);
        const rows = [...table.tBodies[0].rows];
        for (const row of rows) row.classList.remove("break");
        rows.sort((a, b) => (value(a) === "") - (value(b) === "") || compare(value(a), value(b)));
        table.tBodies[0].append(...rows);
      });
    });
  }
};
