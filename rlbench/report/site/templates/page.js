// The page: choice of a suite, tables, figures, and the dialog of a cell. The data are in the element #data.
"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const $ = (id) => document.getElementById(id);
const colourOf = (model) => data.colours[model] || data.colours[model.replace(/ \[[^\]]*\]$/, "")] || "#888888";
const BADGES = {
  sound: "the soundness checks of the run passed",
  partial: "a black box: the soundness checks that apply to it passed",
  warn: "a soundness check gave a warning",
  "needs adaptive": "the encoder has a trait that needs an adaptive attack",
  unreliable: "a soundness check failed: do not trust this number",
};
let current = 0, grid = null, cells = null;

const boundSign = (score) => (score.b ? "≤ " : "");  // of an upper bound

function badge(text) {
  return text ? el("span", { class: "badge", "data-badge": text, title: BADGES[text] || text }, text) : null;
}

// The chosen table

function options(select, values, chosen = 0) {
  select.replaceChildren(...values.map(([value, text], k) => el("option", { value, ...(k === chosen ? { selected: "" } : {}) }, text)));
  select.closest("label").hidden = values.length < 2;
}

function choices() {
  const modality = document.querySelector("#modalities [aria-pressed=true]").dataset.value;
  return data.tables.map((table, k) => [table, k]).filter(([table]) => !modality || table.modality === modality);
}

function listSuites() {
  const groups = Map.groupBy(choices(), ([table]) => table.modality);
  const apart = (table) => table.apart.match(/\(rounds? .*\)/)?.[0] || table.apart;
  const name = (table) => [table.suite, table.part, table.backbone, apart(table)].filter(Boolean).join(" · ");
  $("suite").replaceChildren(...[...groups].map(([modality, tables]) => el("optgroup", { label: modality },
    ...tables.map(([table, k]) => el("option", { value: k }, name(table))))));
}

function scoreCell(table, row, column) {
  const cell = row.cells[column];
  if (!cell) return el("td", { "data-order": -1, class: "none" }, "–");
  const words = cell.e ? "failed" : `${cell.b ? "at most " : ""}${percent(cell.v)} percent, ${interval(cell)}`;
  const inside = cell.e ? [el("b", {}, "failed")] : [el("b", {}, boundSign(cell) + percent(cell.v)), el("small", {}, interval(cell))];
  const button = el("button", {
    type: "button", class: `score${cell.best ? " best" : ""}${cell.e ? " failed" : ""}`, style: `--v:${cell.v.toFixed(3)}`,
    "aria-label": `${row.model}, ${column}: ${words}`, onclick: () => open(table, row, column),
  }, ...inside);
  return el("td", { "data-order": cell.e ? -0.5 : cell.v }, button);
}

function drawBoard() {
  const table = data.tables[current];
  const before = {
    rank: (row) => el("td", { "data-order": row.rank ? row.rank[0] + row.rank[1] / 10000 : 1e9 }, row.rank ? [...new Set(row.rank)].join("–") : "–"),
    model: (row) => el("th", { scope: "row" }, el("i", { class: "dot", style: `--c:${colourOf(row.model)}` }), row.model),
    backbone: (row) => el("td", {}, row.backbone || "–"),
    anchors: (row) => el("td", {}, row.anchors.slice(0, 8) || "–"),
    warning: (row) => el("td", {}, row.warning ? el("span", { class: "badge", "data-badge": "warn" }, row.warning) : "–"),
    soundness: (row) => el("td", {}, badge(row.badge) || "–"),
    n: (row) => el("td", { class: "n wide" }, String(row.n)),
  };
  const body = table.rows.map((row) => el("tr", {}, ...table.before.map((name) => before[name](row)), ...table.columns.map((column) => scoreCell(table, row, column))));
  if (grid) grid.destroy();
  const node = el("table", { id: "grid" }, el("thead", {}, el("tr", {}, ...table.heads.map(([name, detail, about]) => el("th", { scope: "col", class: name === "n" ? "wide" : null, title: about }, name, detail ? el("small", {}, detail) : null)))), el("tbody", {}, ...body));
  $("board").replaceChildren(node);
  grid = new DataTable(node, { paging: false, info: false, order: [], autoWidth: false, layout: { topStart: null, topEnd: table.rows.length > 5 ? "search" : null, bottomStart: null, bottomEnd: null } });
  $("board-title").textContent = table.title;
  $("mini").textContent = table.mini;
  $("mini").hidden = !table.mini;
  $("failures").replaceChildren(...table.notes.map((line) => el("li", { class: line.startsWith("failed") ? null : "facts" }, line)));
  const about = new Map(table.heads.map(([name, detail, text]) => [text, `${name} ${detail || ""}`.trim()]));
  $("columns").querySelector("dl").replaceChildren(...[...about].flatMap(([text, head]) => [el("dt", {}, head), el("dd", {}, text)]));
  $("made").textContent = table.made;
}

function figure(id, values, draw, first) {
  const node = $(id), select = node.querySelector("select"), place = node.querySelector(".drawing");
  node.hidden = !values.length;
  if (!values.length) return;
  options(select, values.map(([text], k) => [k, text]), first);
  select.onchange = () => draw(place, values[+select.value][1]);
  draw(place, values[first][1]);
}

function choose(number) {
  current = number;
  $("suite").value = number;
  const table = data.tables[number];
  drawBoard();
  const worst = table.curves.filter((spec) => spec.what === "worst");
  const long = (worst.length ? worst : table.curves).reduce((best, spec) => (Object.values(spec.models)[0].length > Object.values(best.models)[0].length ? spec : best), table.curves[0]);
  figure("curves", table.curves.map((spec) => [`${spec.what} ${spec.norm}`, spec]), (place, spec) => drawCurves(place, spec, colourOf), Math.max(0, table.curves.indexOf(long)));
  figure("attacked", table.attacked.map((spec) => [spec.what, spec]), (place, spec) => drawCurves(place, spec, colourOf), 0);
  figure("scatter", table.scatters.map((spec) => [spec.column, spec]), (place, spec) => drawScatter(place, spec, colourOf), Math.max(0, (table.scatters.length - 1) >> 1));
  const models = Object.keys(table.heat || {});
  const views = models.length > 1 ? ["", ...models] : models;
  figure("heat", views.map((model) => [model || "all models, mean over severities", model]), (place, model) => drawHeat(place, table.heat, model), 0);
  history.replaceState(null, "", `#${table.suite}-${number}`);
}

// A cell

function flags(record) {
  const bits = [];
  for (let k = 0; k < record.n; k++) bits.push((parseInt(record.flags[k >> 2], 16) >> (3 - (k & 3))) & 1);
  return bits;
}

function map(record, clean) {
  const own = flags(record), before = clean && clean.flags && clean.n === record.n ? flags(clean) : own;
  const kinds = own.map((right, k) => (right ? "kept" : before[k] ? "broken" : "wrong"));
  const across = Math.min(50, record.n), count = (kind) => kinds.filter((one) => one === kind).length;
  const plain = record === clean || !clean;
  const words = plain ? { kept: "correct", wrong: "wrong" } : { kept: "still correct", broken: "broken", wrong: "wrong when clean" };
  const counts = Object.entries(words).map(([kind, text]) => [kind, `${count(kind)} ${text}`]);
  const root = svg("svg", { viewBox: `0 0 ${across * 10} ${Math.ceil(record.n / across) * 10}`, role: "img", "aria-label": counts.map(([, text]) => text).join(", "), class: "map" });
  kinds.forEach((kind, k) => root.append(svg("rect", { x: 10 * (k % across), y: 10 * Math.floor(k / across), width: 9, height: 9, class: kind })));
  return el("section", {}, el("h3", {}, `The ${record.n} examples`),
    el("p", { class: "legend" }, ...counts.flatMap(([kind, text]) => [el("span", { class: `swatch ${kind}` }), ` ${text}  `])), root);
}

const guess = (one) => el("span", { class: one.correct ? "right" : "wrong" }, `${one.correct ? "✓" : "✗"} ${one.name}`);

function pictures(record) {
  const one = (p) => el("figure", { class: "example" },
    el("figcaption", {}, el("b", {}, p.label), ` · example ${p.index}`, p.agrees ? null : el("em", {}, " · the result differs from that of the run")),
    el("div", { class: "triple" }, ...["clean", "perturbed", `difference × ${p.gain}`].map((name, k) =>
      el("div", {}, el("img", { src: p.images[k], alt: `${p.label}, ${name}`, class: record.modality }), el("small", {}, name), k === 0 ? guess(p.clean) : k === 1 ? guess(p.perturbed) : null))));
  return el("section", {}, el("h3", {}, "Examples"), el("div", { class: "examples" }, ...record.pictures.map(one)));
}

function facts(record) {
  const all = { ...data.tables[record.table].facts, ...record.facts, "forward passes": record.forwards, "backward passes": record.backwards };
  const list = Object.entries(all).flatMap(([name, value]) => [el("dt", {}, name.replaceAll("_", " ")), el("dd", {}, String(value))]);
  return el("details", {}, el("summary", {}, "Provenance"), el("dl", {}, ...list));
}

function again(record) {
  const text = record.facts.key && `rlbench show ${record.suite} --model ${record.model}${record.kind === "clean" ? "" : ` --perturbation "${record.perturbation}"`}`;
  const worst = record.kind === "worst";
  return worst ? null : el("p", {}, record.pictures ? "More pictures: " : "To draw pictures, with the model installed: ", el("code", {}, text));
}

function one(record, clean) {
  const parts = [];
  if (record.error) parts.push(el("p", { class: "error" }, `Failed: ${record.error}`));
  else parts.push(el("p", { class: "big" }, el("b", {}, boundSign(record) + percent(record.n_correct / record.n)), `% `, el("small", {}, `95% interval ${interval(record)} · ${record.n_correct} of ${record.n}`)));
  if (record.soundness) parts.push(el("p", {}, badge(record.soundness), ` ${BADGES[record.soundness] || ""}`));
  if (record.doubts) parts.push(el("ul", { class: "doubts" }, ...record.doubts.map((one) => el("li", {}, el("b", {}, one.said), one.asks ? ` (check ${one.id}: ${one.asks}). To do: ${one.advice}.` : ` (check ${one.id})`))));
  if (record.pictures) parts.push(pictures(record));
  if (record.flags) parts.push(map(record, clean));
  return [...parts, again(record), facts(record)];
}

function open(table, row, column) {
  const cell = row.cells[column], records = cell.r.map((k) => data.records[k]);
  const before = row.cells.clean && data.records[row.cells.clean.r[0]];
  const parts = [el("h2", { id: "cell-title" }, `${row.model} · ${column}`), el("p", { class: "facts" }, table.title)];
  if (cell.d) parts.push(el("p", {}, `Difference to ${table.baseline}: `, el("b", {}, cell.d)));
  if (cell.e) parts.push(el("p", { class: "error" }, `Failed: ${cell.e}`));
  if (records.length === 1) parts.push(...one(records[0], before));
  else parts.push(el("p", {}, `The mean of ${records.length} cells:`), ...records.map((record) =>
    el("details", {}, el("summary", {}, `${record.perturbation}: ${record.error ? "failed" : boundSign(record) + percent(record.n_correct / record.n)}`), ...one(record, before).filter(Boolean))));
  $("cell-body").replaceChildren(...parts.filter(Boolean));
  $("cell").showModal();
  $("cell").scrollTop = 0;
}

// All cells

function listCells() {
  const rows = data.records.map((record, k) => ({ k, ...record, share: record.error ? -1 : record.n_correct / record.n })).filter((row) => row.table !== undefined);
  const shown = (row) => (row.error ? "failed" : `${boundSign(row)}${percent(row.share)} [${interval(row)}]`);
  const columns = [["model"], ["perturbation", "column"], ["suite"], ["modality", "modality", "wide"]].map(([name, title = name, className]) => ({ data: name, title, className, render: DataTable.render.text() }));
  columns.splice(2, 0, { data: "share", title: "accuracy, %", type: "num", render: (v, kind, row) => (kind === "display" ? `<button type="button" class="link" data-k="${row.k}">${shown(row)}</button>` : v) });
  columns.push({ data: "n", title: "n", className: "wide" });
  if (rows.some((row) => row.soundness)) columns.push({ data: "soundness", title: "soundness", defaultContent: "", render: DataTable.render.text() });
  cells = new DataTable("#cells", { data: rows, columns, pageLength: 15, order: [], autoWidth: false, deferRender: true, layout: { topStart: null, topEnd: "search", bottomStart: "info", bottomEnd: "paging" }, language: { search: "Search", info: "_START_ to _END_ of _TOTAL_ cells", infoEmpty: "no cells", infoFiltered: "(of _MAX_)", emptyTable: "No records." } });
  $("cells").addEventListener("click", (event) => {
    const number = event.target.closest("[data-k]")?.dataset.k;
    if (number === undefined) return;
    const record = data.records[number], table = data.tables[record.table];
    const row = table.rows.find((row) => Object.values(row.cells).some((cell) => cell.r.includes(+number)));
    const clean = row.cells.clean && data.records[row.cells.clean.r[0]];
    $("cell-body").replaceChildren(...[el("h2", { id: "cell-title" }, `${record.model} · ${record.perturbation}`), el("p", { class: "facts" }, table.title), ...one(record, clean)].filter(Boolean));
    $("cell").showModal();
  });
  $("filters").replaceChildren(...["suite", "model", "column"].map((name, k) => {
    const index = [3, 0, 1][k], values = [...new Set(rows.map((row) => row[["suite", "model", "perturbation"][k]]))];
    return el("label", {}, `${name} `, el("select", { onchange: (event) => cells.column(index).search(event.target.value, { exact: event.target.value !== "" }).draw() },
      el("option", { value: "" }, "all"), ...values.map((value) => el("option", {}, value))));
  }));
}

const twoLines = (text) => {
  const [, number, rest] = text.match(/^(\S+) ([[(].*)$/) || [0, text]; // such as "84.5 [78.8, 88.9]"
  return rest ? [el("b", {}, number), el("small", {}, rest)] : [number];
};

function listTogether() {
  $("together").replaceChildren(...data.together.flatMap(({ title, head, rows, said }) => [el("h2", {}, `Sensors together: ${title}`),
    el("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Sensors together" }, el("table", { class: "text" },
      el("thead", {}, el("tr", {}, ...head.map((name) => el("th", { scope: "col" }, name)))),
      el("tbody", {}, ...rows.map((row) => el("tr", {}, ...row.map((text, k) => (k ? el("td", { class: "n" }, ...twoLines(text)) : el("th", { scope: "row" }, el("i", { class: "dot", style: `--c:${colourOf(text)}` }), text)))))))),
    ...(said.length ? [el("ul", {}, ...said.map((line) => el("li", {}, line)))] : [])]));
}

function listMeans() {
  $("means").replaceChildren(...data.macros.flatMap((macro) => {
    const names = Object.keys(macro.rows[0][1]);
    const row = ([model, scores]) => el("tr", {}, el("th", { scope: "row" }, el("i", { class: "dot", style: `--c:${colourOf(model)}` }), model),
      ...names.map((name) => el("td", {}, scores[name] ? el("span", { class: "score", style: `--v:${scores[name].v}` }, el("b", {}, boundSign(scores[name]) + percent(scores[name].v)), el("small", {}, interval(scores[name]))) : "–")),
      ...(Object.keys(macro.minus).length ? names.map((name) => el("td", { class: "n" }, macro.minus[model.split(" [")[0]]?.[name] || "–")) : []));
    const head = ["model", ...names, ...(Object.keys(macro.minus).length ? names.map((name) => `${name} minus ${data.baseline}`) : [])];
    return [el("h2", {}, `Macro average of ${macro.family}, over ${macro.modalities.join(", ")}`), el("p", { class: "facts" }, `${macro.backbone ? `backbone ${macro.backbone}; ` : ""}${macro.over} ${macro.suites.join(", ")}`),
      el("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Macro averages" }, el("table", { class: "means" }, el("thead", {}, el("tr", {}, ...head.map((text) => el("th", { scope: "col" }, text)))), el("tbody", {}, ...macro.rows.map(row))))];
  }));
}

// The start

function theme(name) {
  document.documentElement.dataset.theme = name;
  $("theme").textContent = `Theme: ${name}`;
  try { localStorage.setItem("rlbench-theme", name); } catch { /* a page opened from a file may have no storage */ }
}

function start() {
  let kept = "auto";
  try { kept = localStorage.getItem("rlbench-theme") || "auto"; } catch { /* likewise */ }
  theme(kept);
  const names = ["auto", "light", "dark"];
  $("theme").onclick = () => theme(names[(names.indexOf(document.documentElement.dataset.theme) + 1) % 3]);
  const modalities = ["", ...new Set(data.tables.map((table) => table.modality))];
  const press = (event) => {
    for (const chip of $("modalities").children) chip.setAttribute("aria-pressed", String(chip === event.target));
    listSuites();
    const those = choices().map(([, k]) => k);
    choose(those.includes(current) ? current : those[0]);
  };
  $("modalities").replaceChildren(...modalities.map((name) => el("button", { type: "button", class: "chip", "aria-pressed": String(!name), "data-value": name, onclick: press }, name || "all")));
  $("modalities").hidden = modalities.length < 3;
  listSuites();
  $("suite").onchange = () => choose(+$("suite").value);
  $("cell").addEventListener("click", (event) => { if (event.target === $("cell")) $("cell").close(); });
  let width = innerWidth;
  addEventListener("resize", () => { if (innerWidth !== width) { width = innerWidth; choose(current); } });
  const wanted = data.tables.findIndex((table, k) => location.hash === `#${table.suite}-${k}`);
  if (data.tables.length) choose(Math.max(0, wanted));
  else $("board-title").textContent = "No records.";
  listTogether();
  listMeans();
  listCells();
}

start();
