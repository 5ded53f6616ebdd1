"use strict";
// Filters the rows of a board and opens a row to its runs. Text of records is only ever set as text, never as markup.
(() => {
  const found = document.getElementById("runs");
  if (!found) return;
  const groups = JSON.parse(found.textContent);
  const tables = [...document.querySelectorAll("table.board")];

  function element(tag, properties = {}, ...children) {
    const made = document.createElement(tag);
    for (const [name, value] of Object.entries(properties)) {
      if (name in made) made[name] = value;
      else made.setAttribute(name, value);
    }
    made.append(...children);
    return made;
  }

  // ---- filter

  const text = document.getElementById("filter");
  const uses = [...document.querySelectorAll("input[name=use]")];

  function filter() {
    const words = text.value.toLowerCase().split(/\s+/).filter(Boolean);
    const use = uses.find((input) => input.checked).value;
    let shown = 0;
    let all = 0;
    for (const table of tables) {
      const away = new Set();
      for (const row of table.querySelectorAll("tr.line")) {
        const fits = (use === "all" || row.dataset.use === use) && words.every((word) => row.dataset.search.includes(word));
        row.hidden = !fits;
        const panel = panelOf(row);
        if (panel) panel.hidden = !fits;
        if (!fits) away.add(Number(row.dataset.row));
        shown += fits;
        all += 1;
      }
      pictures.hide(table.closest("section").id, away);
    }
    document.getElementById("shown").textContent = shown === all ? `${all} rows` : `${shown} of ${all} rows`;
  }
  let waiting;
  text.addEventListener("input", () => {
    clearTimeout(waiting);
    waiting = setTimeout(filter, 120);
  });
  for (const input of uses) input.addEventListener("change", filter);
  // A browser that goes back brings the fields back, too.
  filter();

  // ---- runs of a row

  function panelOf(row) {
    const next = row.nextElementSibling;
    return next && next.classList.contains("drill") ? next : null;
  }

  for (const table of tables) {
    table.tBodies[0].addEventListener("click", (event) => {
      const row = event.target.closest("tr.line");
      if (!row || (!event.target.closest("button.open") && event.target.closest("a, button, input"))) return;
      if (String(getSelection())) return; // someone copies a number
      toggle(table, row);
    });
  }

  function toggle(table, row) {
    const button = row.querySelector("button.open");
    const panel = panelOf(row);
    const opens = !panel;
    button.setAttribute("aria-expanded", String(opens));
    row.classList.toggle("opened", opens);
    if (panel) {
      panel.remove();
      return;
    }
    const group = groups[Number(table.dataset.group)];
    const id = `${row.id}-runs`;
    button.setAttribute("aria-controls", id);
    const inner = element("div", { className: "panel", id });
    const cell = element("td", { colSpan: row.cells.length }, inner);
    row.after(element("tr", { className: "drill" }, cell));
    fill(inner, group, group.rows[Number(row.dataset.row)], table, row);
  }

  function fill(panel, group, row, table, line) {
    const count = row.runs.length;
    panel.append(element("h3", {}, `${row.label}: ${count} run${count === 1 ? "" : "s"}`));
    if (row.notes.length) panel.append(element("ul", { className: "notes" }, ...row.notes.map((note) => element("li", {}, note))));
    if (row.missing.length) panel.append(element("p", { className: "legend" }, `Without a result: ${row.missing.join(", ")}`));
    panel.append(grid(group.tests, row.tests, "Means and tests"));
    panel.append(curves(row, table, line));
    panel.append(sections(group, row));
    panel.append(warnings(row));
    panel.append(settings(group, row));
  }

  function grid(header, lines, caption) {
    const head = element("thead", {}, element("tr", {}, ...header.map((name) => element("th", { scope: "col" }, name))));
    const body = element("tbody", {}, ...lines.map(([name, ...values]) => line(name, values)));
    return element("div", { className: "block" }, element("h4", {}, caption), element("table", { className: "plain tests" }, head, body));
  }

  function line(name, values) {
    return element("tr", {}, element("th", { scope: "row" }, name), ...values.map((value) => element("td", {}, value)));
  }

  // One small table a section, a column a seed; what all seeds share takes all columns.
  function sections(group, row) {
    const parts = new Map();
    for (const key of group.keys) {
      const values = row.runs.map((run) => run.facts[key] ?? row.facts[key] ?? group.facts[key]);
      if (values.every((value) => value === undefined)) continue;
      const [section, name] = [key.slice(0, key.indexOf(" / ")), key.slice(key.indexOf(" / ") + 3)];
      if (!parts.has(section)) parts.set(section, []);
      parts.get(section).push([name, values]);
    }
    const seeds = row.runs.map((run) => element("th", { scope: "col" }, `seed ${run.seed}`));
    const tables = [...parts].map(([section, lines]) => {
      const differs = lines.some(([, values]) => new Set(values).size > 1);
      const head = element("thead", {}, element("tr", {}, element("th", { scope: "col" }, ""), ...seeds.map((seed) => seed.cloneNode(true))));
      const body = element("tbody", {}, ...lines.map(([name, values]) => fact(name, values, differs)));
      const made = element("table", { className: "plain" }, ...(differs ? [head, body] : [body]));
      return element("div", { className: "block" }, element("h4", {}, section), made);
    });
    return element("div", { className: "blocks" }, ...tables);
  }

  function fact(name, values, differs) {
    const same = new Set(values).size === 1;
    const cells = same ? [said(values[0], differs ? values.length : 1)] : values.map((value) => said(value, 1));
    return element("tr", {}, element("th", { scope: "row" }, name), ...cells);
  }

  function said(value, columns) {
    const cell = element("td", { colSpan: columns });
    if (columns > 1) cell.className = "same";
    if (typeof value === "string" && /^[0-9a-f]{40,}$/.test(value)) {
      cell.append(element("code", { title: value }, value.slice(0, 12)));
    } else cell.textContent = number(value);
    return cell;
  }

  function number(value) {
    if (value === null || value === undefined) return "–";
    if (typeof value !== "number" || Number.isInteger(value)) return String(value).replace(/^-(?=\d)/, "−");
    return String(Number(value.toPrecision(6))).replace(/^-/, "−");
  }

  function warnings(row) {
    const told = row.runs.flatMap((run) => run.warnings.map((warning) => element("li", {}, `seed ${run.seed}: ${warning}`)));
    const list = told.length ? element("ul", { className: "warnings" }, ...told) : element("p", { className: "legend" }, "None was logged.");
    return element("div", { className: "block" }, element("h4", {}, "Warnings"), list);
  }

  function settings(group, row) {
    const own = { ...row.config };
    const keys = [...new Set(row.runs.flatMap((run) => Object.keys(run.config)))];
    for (const key of keys) own[key] = row.runs.map((run) => setting(run.config[key])).join(", ");
    const entries = Object.keys(own).sort(byName).map((key) => pair(key, keys.includes(key) ? `${own[key]} (by seed)` : setting(own[key])));
    const full = { ...group.config, ...row.config, ...row.runs[0].config };
    const lines = Object.keys(full).sort(byName).map((key) => `${key}: ${setting(full[key])}`);
    const seeds = row.runs.length > 1 ? `, seed ${row.runs[0].seed}` : "";
    return element(
      "div",
      { className: "block" },
      element("h4", {}, "Settings that not all rows share"),
      element("dl", { className: "keys" }, ...entries),
      element("details", {}, element("summary", {}, `Full configuration${seeds} (${lines.length} settings)`), element("pre", { tabIndex: 0 }, lines.join("\n"))),
    );
  }

  const byName = (a, b) => a.localeCompare(b);
  const pair = (key, value) => element("div", {}, element("dt", {}, key), element("dd", {}, value));
  const setting = (value) => (typeof value === "string" ? value : JSON.stringify(value ?? null));

  function curves(row, table, line) {
    const index = Number(line.dataset.row);
    const group = table.closest("section").id;
    const both = ["Validation", "Losses"].map((title) => {
      const plot = element("div", { className: "plot", role: "img", "aria-label": `${title} by epoch` });
      return [plot, element("div", { className: "block" }, element("h4", {}, title), plot)];
    });
    pictures.data().then(({ figures, losses }) => {
      const learning = figures[`${group}-curves`];
      const mine = learning ? learning.data.filter((trace) => trace.row === index).map(({ row: _, ...trace }) => trace) : [];
      const layout = { ...(learning ? learning.layout : {}), height: 240 };
      show(both[0], mine, { ...layout, showlegend: false });
      show(both[1], lossTraces(losses[Number(table.dataset.group)][index], row.runs), lossLayout(losses[Number(table.dataset.group)][index]));
    });
    return element("div", { className: "pair" }, ...both.map(([, block]) => block));
  }

  function show([plot, block], data, layout) {
    if (data.length) pictures.draw(plot, { data, layout }, "");
    else block.remove();
  }

  // A colour a loss, a line a seed.
  function lossTraces(runs, told) {
    const names = [...new Set(runs.flatMap((run) => Object.keys(run)))];
    return runs.flatMap((run, i) =>
      Object.entries(run)
        .filter(([, values]) => values.length > 1)
        .map(([name, values]) => ({
          type: "scatter",
          mode: "lines",
          name: name.replace(/&/g, "&amp;").replace(/</g, "&lt;"),
          legendgroup: name,
          showlegend: i === 0,
          x0: 0,
          dx: 1,
          y: values,
          line: { width: 1.5, color: `--c${names.indexOf(name) % 10}` },
          hovertemplate: `seed ${told[i].seed}, epoch %{x}: %{y:.4g}`,
        })),
    );
  }

  function lossLayout(runs) {
    const positive = runs.every((run) => Object.values(run).every((values) => values.every((value) => value === null || value > 0)));
    return { height: 240, xaxis: { title: { text: "epoch, from 0" } }, yaxis: { type: positive ? "log" : "linear" } };
  }
})();
