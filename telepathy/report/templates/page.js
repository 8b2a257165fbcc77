"use strict";
// Data reach the page through textContent alone: nothing that a text says becomes markup.
(() => {
  const PAGE = 25;
  const SIDE_BY_SIDE = 6;
  const tasks = JSON.parse(document.getElementById("data").textContent);
  const find = (id) => document.getElementById(id);

  function element(name, text, attributes = {}) {
    const made = document.createElement(name);
    if (text !== undefined) made.textContent = text;
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    return made;
  }

  // ---- Tables that sort: a button in each heading of the last head row ----

  const NUMBER = /^[−+-]?\d[\d,]*(\.\d+)?/;

  function compare(one, other) {
    const numbers = [one, other].map((text) => (NUMBER.test(text) ? parseFloat(text.replace("−", "-").replace(/,/g, "")) : NaN));
    const missing = numbers.map(Number.isNaN);
    if (!missing[0] && !missing[1]) return numbers[0] - numbers[1];
    if (missing[0] !== missing[1]) return missing[0] ? 1 : -1;
    return one.localeCompare(other, "en");
  }

  function sortBy(table, heading, column) {
    const ascending = heading.getAttribute("aria-sort") !== "ascending";
    for (const other of table.querySelectorAll("th[aria-sort]")) other.removeAttribute("aria-sort");
    heading.setAttribute("aria-sort", ascending ? "ascending" : "descending");
    const body = table.tBodies[0];
    const key = (row) => row.cells[column].textContent.trim();
    const rows = [...body.rows].sort((one, other) => compare(key(one), key(other)) * (ascending ? 1 : -1));
    body.append(...rows);
  }

  function makeSortable(table) {
    const head = table.tHead && table.tHead.rows[table.tHead.rows.length - 1];
    const body = table.tBodies[0];
    const width = head ? head.cells.length : 0;
    const regular = body && [...body.rows].every((row) => row.cells.length === width);
    if (!width || !regular || table.tBodies.length !== 1) return;
    [...head.cells].forEach((heading, column) => {
      const button = element("button", heading.textContent.trim(), { type: "button" });
      heading.replaceChildren(button);
      button.addEventListener("click", () => sortBy(table, heading, column));
    });
  }

  // ---- Predictions ----

  const state = { task: tasks[0], chosen: new Set(), page: 0 };

  function usualRuns(task) {
    const seen = new Set();
    const first = task.runs.filter((run) => run.group === "main" && !seen.has(run.method) && seen.add(run.method));
    return (first.length ? first : task.runs).slice(0, 4).map((run) => run.name);
  }

  function chooseTask(name, runs) {
    state.task = tasks.find((task) => task.task === name) || tasks[0];
    state.chosen = new Set(runs || usualRuns(state.task));
    state.page = 0;
    find("task").value = state.task.task;
    drawChoices();
    drawTable();
  }

  function drawChoices() {
    const boxes = state.task.runs.map((run) => {
      const label = element("label");
      const box = element("input", undefined, { type: "checkbox", value: run.name });
      box.checked = state.chosen.has(run.name);
      label.append(box, ` ${run.title} (${(100 * run.accuracy).toFixed(1)} %)`);
      return label;
    });
    find("chosen").replaceChildren(element("legend", `Runs side by side (${SIDE_BY_SIDE} at most)`), ...boxes);
    limitChoices();
  }

  function limitChoices() {
    for (const box of find("chosen").querySelectorAll("input")) box.disabled = !box.checked && state.chosen.size >= SIDE_BY_SIDE;
  }

  const chosenRuns = () => state.task.runs.filter((run) => state.chosen.has(run.name));
  const answerOf = (run, row) => state.task.answers[run.answers[row]];

  function matches(row, runs, filter, words) {
    const example = state.task.examples[row];
    if (filter === "disagree" && new Set(runs.map((run) => run.answers[row])).size < 2) return false;
    if (filter === "wrong" && runs.every((run) => run.right[row])) return false;
    if (filter === "all-wrong" && (!runs.length || runs.some((run) => run.right[row]))) return false;
    if (!words) return true;
    const texts = [example.id, example.text, example.label, ...runs.map((run) => answerOf(run, row))];
    return texts.some((text) => text.toLowerCase().includes(words));
  }

  function answerCell(run, row) {
    const right = run.right[row];
    const cell = element("td", undefined, { class: right ? "right" : "wrong" });
    cell.append(element("span", right ? "✓ " : "✗ ", { "aria-hidden": "true" }), answerOf(run, row) || "(no answer)");
    cell.append(element("span", right ? " (right)" : " (wrong)", { class: "hidden" }));
    if (run.written) cell.append(element("span", run.written[row], { class: "written" }));
    return cell;
  }

  function exampleRow(row, runs) {
    const example = state.task.examples[row];
    const line = element("tr");
    line.append(element("th", example.id, { scope: "row" }), element("td", example.text, { class: "text" }));
    line.append(element("td", example.label), ...runs.map((run) => answerCell(run, row)));
    return line;
  }

  function drawTable() {
    const runs = chosenRuns();
    const words = find("search").value.trim().toLowerCase();
    const rows = state.task.examples.map((_, row) => row).filter((row) => matches(row, runs, find("filter").value, words));
    const pages = Math.max(1, Math.ceil(rows.length / PAGE));
    state.page = Math.min(state.page, pages - 1);
    const head = element("tr");
    for (const title of ["Id", "Text", "Label", ...runs.map((run) => run.title)]) head.append(element("th", title, { scope: "col" }));
    const table = find("prediction-table");
    table.tHead.replaceChildren(head);
    table.tBodies[0].replaceChildren(...rows.slice(state.page * PAGE, (state.page + 1) * PAGE).map((row) => exampleRow(row, runs)));
    const held = state.task.examples.length;
    const cut = held < state.task.total ? ` This page holds the first ${held} of ${state.task.total} test examples; all are in predictions.parquet.` : "";
    find("status").textContent = `${rows.length} of ${held} examples.${cut}`;
    find("page").textContent = `page ${state.page + 1} of ${pages}`;
    find("previous").disabled = state.page === 0;
    find("next").disabled = state.page >= pages - 1;
    drawDetails(runs);
  }

  function drawDetails(runs) {
    find("details").replaceChildren(
      ...runs.map((run) => {
        const box = element("details");
        box.append(element("summary", `Metrics and provenance: ${run.title}`));
        const facts = { run: run.name, metrics: run.metrics, provenance: run.provenance };
        box.append(element("pre", JSON.stringify(facts, null, 2), { tabindex: "0" }));
        return box;
      }),
    );
  }

  function redraw() {
    state.page = 0;
    drawTable();
  }

  function turn(step) {
    state.page += step;
    drawTable();
  }

  function look(name) {
    chooseTask(name.split("/")[0], [name]);
    find("filter").value = "all";
    find("search").value = "";
    drawTable();
    find("predictions-title").focus();
    find("predictions").scrollIntoView();
  }

  function start() {
    document.querySelectorAll("table.sortable, .fragment table").forEach(makeSortable);
    if (!tasks.length) {
      find("status").textContent = "This study has no predictions.";
      return;
    }
    find("task").append(...tasks.map((task) => element("option", task.title, { value: task.task })));
    find("controls").addEventListener("submit", (event) => event.preventDefault());
    find("task").addEventListener("change", (event) => chooseTask(event.target.value));
    find("filter").addEventListener("change", redraw);
    find("search").addEventListener("input", redraw);
    find("previous").addEventListener("click", () => turn(-1));
    find("next").addEventListener("click", () => turn(1));
    find("chosen").addEventListener("change", (event) => {
      state.chosen[event.target.checked ? "add" : "delete"](event.target.value);
      limitChoices();
      drawTable();
    });
    for (const button of document.querySelectorAll("button[data-run]")) button.addEventListener("click", () => look(button.dataset.run));
    chooseTask(tasks[0].task);
  }

  start();
})();
