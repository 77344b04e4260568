"use strict";

// Tables: sort by a heading, filter by words and by facets. They work without Plotly and before it.

function cellValue(row, column) {
  const cell = row.cells[column];
  const text = cell.dataset.v ?? cell.textContent.trim();
  const number = Number(text);
  return text === "" ? null : Number.isNaN(number) ? text.toLowerCase() : number;
}

function compare(a, b) {
  if (typeof a === "number" && typeof b === "number") return a - b;
  return String(a).localeCompare(String(b), "en", { numeric: true });
}

function sortBy(table, heading) {
  const column = heading.cellIndex;
  const descending = heading.getAttribute("aria-sort") === "ascending";
  for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
  heading.setAttribute("aria-sort", descending ? "descending" : "ascending");
  const rows = [...table.tBodies[0].rows].map((row) => [cellValue(row, column), row]);
  const known = rows.filter(([value]) => value !== null).sort(([a], [b]) => (descending ? compare(b, a) : compare(a, b)));
  const unknown = rows.filter(([value]) => value === null);
  table.tBodies[0].append(...[...known, ...unknown].map(([, row]) => row));
}

function columnOf(table, name) {
  return [...table.tHead.rows[0].cells].findIndex((cell) => cell.textContent.trim() === name);
}

function filterRows(table, filters) {
  const tests = filters.map((filter) => {
    const value = filter.value.trim();
    if (filter.tagName === "SELECT") {
      const column = columnOf(table, filter.dataset.column);
      return (row) => value === "" || row.cells[column].textContent.trim() === value;
    }
    const words = value.toLowerCase().split(/\s+/).filter(Boolean);
    return (row) => words.every((word) => row.textContent.toLowerCase().includes(word));
  });
  let shown = 0;
  for (const row of table.tBodies[0].rows) {
    row.hidden = !tests.every((test) => test(row));
    shown += row.hidden ? 0 : 1;
  }
  const count = document.querySelector(`[data-count="${table.id}"]`);
  count.textContent = `${shown} of ${table.tBodies[0].rows.length} rows`;
}

for (const table of document.querySelectorAll("table.sortable")) {
  for (const heading of table.tHead.rows[0].cells) {
    heading.querySelector("button").addEventListener("click", () => sortBy(table, heading));
  }
  const filters = table.id ? [...document.querySelectorAll(`[data-filters="${table.id}"]`)] : [];
  for (const filter of filters) {
    if (filter.tagName === "SELECT") {
      const column = columnOf(table, filter.dataset.column);
      const values = new Set([...table.tBodies[0].rows].map((row) => row.cells[column].textContent.trim()));
      for (const value of [...values].filter(Boolean).sort(compare)) filter.append(new Option(value, value));
      filter.parentElement.hidden = filter.options.length < 3;
    }
    filter.addEventListener(filter.tagName === "SELECT" ? "change" : "input", () => filterRows(table, filters));
  }
  if (filters.length) filterRows(table, filters);
}

// Long names break where their parts meet, not in the middle of a word.
for (const cell of document.querySelectorAll("table.sortable tbody th")) {
  cell.replaceChildren(...cell.textContent.split(/(?<=[_/=])/).flatMap((part) => [part, document.createElement("wbr")]));
}

// A table that is wider than the page says so: where scrollbars are hidden, nothing else does.
for (const box of document.querySelectorAll(".scroll")) {
  const hint = document.createElement("p");
  hint.className = "hint";
  hint.setAttribute("aria-hidden", "true");
  box.after(hint);
  const tell = () => {
    const left = box.scrollWidth - box.clientWidth - box.scrollLeft;
    const hidden = [...box.querySelectorAll("thead th")].filter((cell) => cell.offsetLeft + cell.offsetWidth > box.scrollLeft + box.clientWidth + 2);
    hint.hidden = box.scrollWidth <= box.clientWidth + 1;
    hint.textContent = left > 2 ? `${hidden.length} more column${hidden.length === 1 ? "" : "s"} to the right \u2192` : "\u2190 scrolled to the last column";
  };
  new ResizeObserver(tell).observe(box);
  box.addEventListener("scroll", tell, { passive: true });
}

// Attention lies over the drawing that stands above it, which the page holds once.
for (const article of document.querySelectorAll(".gallery article")) {
  const picture = article.querySelector("img");
  for (const map of picture ? article.querySelectorAll(".attention svg") : []) {
    map.style.backgroundImage = `url("${picture.src}")`;
  }
}

// Figures: traces name settings; their estimates are looked up for the metric and control that are chosen.

const source = document.getElementById("chart-data");
const data = source ? JSON.parse(source.textContent) : null;

const FONT = { family: "system-ui, DejaVu Sans, sans-serif", size: 12 };
const SYMBOL = 50; // pixels that an entry of a legend takes beside its text

function withColours(value, style) {
  if (typeof value === "string" && value.startsWith("var(")) return style.getPropertyValue(value.slice(4, -1)).trim();
  if (Array.isArray(value)) return value.map((inner) => withColours(inner, style));
  if (value && typeof value === "object") {
    return Object.fromEntries(Object.entries(value).map(([key, inner]) => [key, withColours(inner, style)]));
  }
  return value;
}

function escaped(text) {
  return text.replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");
}

function described(number, estimate, digits) {
  const [mean, low, high, seeds] = estimate;
  const interval = low === null ? "no interval" : `[${low.toFixed(digits)}, ${high.toFixed(digits)}]`;
  const setting = data.settings[number];
  const size = setting.parameters === null ? "" : `<br>${setting.parameters.toLocaleString("en")} trained parameters`;
  return `${escaped(setting.label)}<br><b>${mean.toFixed(digits)}</b> ${interval}, ${seeds} seed${seeds === 1 ? "" : "s"}${size}`;
}

function filled(trace, metric, view) {
  const { fill, front, settings, ...plain } = trace;
  if (!fill) return plain;
  const estimates = data.estimates[metric][view];
  const digits = data.metrics[metric].digits;
  if (fill === "z") {
    const known = (number) => number !== null && estimates[number];
    plain.z = settings.map((row) => row.map((number) => (known(number) ? estimates[number][0] : null)));
    plain.hovertext = settings.map((row) => row.map((number) => (known(number) ? described(number, estimates[number], digits) : "")));
    return { ...plain, hoverinfo: "text", texttemplate: `%{z:.${digits}f}`, showscale: false };
  }
  if (front) {
    const members = data.fronts[metric][view] ?? [];
    plain.x = members.map((number) => data.settings[number].parameters);
    plain.y = members.map((number) => estimates[number][0]);
    return { ...plain, hoverinfo: "skip" };
  }
  const other = fill === "y" ? "x" : "y";
  const points = settings.map((number, i) => [number, plain[other][i], estimates[number]]).filter(([, , e]) => e);
  plain[other] = points.map(([, place]) => place);
  plain[fill] = points.map(([, , e]) => e[0]);
  plain[`error_${fill}`] = {
    type: "data", symmetric: false, thickness: 1.5, width: 4, color: plain.marker.color,
    array: points.map(([, , e]) => (e[2] === null ? null : e[2] - e[0])),
    arrayminus: points.map(([, , e]) => (e[1] === null ? null : e[0] - e[1])),
  };
  const symbol = plain.marker.symbol ?? "circle";
  plain.marker = { ...plain.marker, symbol: points.map(([, , e]) => (e[1] === null ? `${symbol}-open` : symbol)) };
  plain.text = points.map(([number, , e]) => described(number, e, digits));
  return { ...plain, hovertemplate: "%{text}<extra></extra>" };
}

function titleOf(view, metric) {
  const label = data.metrics[metric].label;
  if (view === "score") return label;
  return view === "full" ? `${label}, difference to full size` : `${label}, gap over ${view}`;
}

// How wide a text is in the figures' font, in pixels.
const measure = document.createElement("canvas").getContext("2d");
measure.font = `${FONT.size}px ${FONT.family}`;
function widthOf(text) {
  return measure.measureText(text.replace(/&lt;/g, "<").replace(/&gt;/g, ">").replace(/&amp;/g, "&")).width;
}

function wrapped(text, width) {
  const lines = [];
  for (const word of text.split(" ")) {
    const longer = lines.length ? `${lines.at(-1)} ${word}` : word;
    if (lines.length && widthOf(longer) <= width) lines[lines.length - 1] = longer;
    else lines.push(word);
  }
  return lines;
}

// The height of a legend below the plot: its names are wrapped to the figure's width and stand in columns.
function legendHeight(entries, width) {
  const names = entries.map((trace) => wrapped(trace.name, width - SYMBOL));
  const perRow = Math.max(1, Math.floor(width / (Math.max(...names.flat().map(widthOf)) + SYMBOL)));
  const lines = Math.max(...names.map((name) => name.length));
  return (16 * lines + 6) * Math.ceil(names.length / perRow) + 8;
}

function layoutOf(figure, view, metric, width) {
  const axis = { gridcolor: "var(--rule)", zerolinecolor: "var(--muted)", linecolor: "var(--rule)", automargin: true };
  const layout = {
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", hovermode: "closest", dragmode: false,
    font: { color: "var(--ink)", ...FONT },
    margin: { l: 56, r: 12, t: 36, b: 48 },
    legend: { orientation: "h", xref: "container", x: 0, yref: "container", y: 0, yanchor: "bottom" },
    hoverlabel: { bgcolor: "var(--page)", bordercolor: "var(--muted)", font: { color: "var(--ink)" }, align: "left" },
    xaxis: { ...axis, ...figure.layout.xaxis }, yaxis: { ...axis, ...figure.layout.yaxis },
    modebar: { bgcolor: "rgba(0,0,0,0)", color: "var(--muted)", activecolor: "var(--ink)" },
    shapes: [], annotations: [], height: figure.height,
  };
  const traces = figure.traces;
  const filledAxis = traces[0].fill === "x" ? "x" : "y";
  if (view !== "given") layout.title = { text: titleOf(view, metric), font: { size: 13 }, x: 0, xref: filledAxis === "x" ? "container" : "paper", xanchor: "left" };
  const line = (value, dash) => ({
    type: "line", layer: "below", line: { color: "var(--muted)", width: 1.5, dash },
    ...(filledAxis === "y" ? { xref: "paper", x0: 0, x1: 1, y0: value, y1: value } : { yref: "paper", y0: 0, y1: 1, x0: value, x1: value }),
  });
  if (!["given", "score"].includes(view) && traces[0].fill !== "z") layout.shapes.push(line(0, "solid"));
  if (view === "full" && metric === data.margin.metric) layout.shapes.push(line(data.margin.value, "dot"));
  // A legend under the plot takes its own room, so that many long names on a phone do not squeeze the plot away.
  const entries = traces.filter((trace) => trace.showlegend !== false && trace.fill !== "z");
  layout.showlegend = entries.length > 1;
  if (layout.showlegend) {
    const room = legendHeight(entries, width);
    layout.height += room;
    layout.margin.b += room;
  }
  return layout;
}

function draw() {
  const metric = document.getElementById("metric")?.value;
  const control = document.getElementById("control")?.value;
  const style = getComputedStyle(document.documentElement);
  for (const panel of document.querySelectorAll("[data-figure]")) {
    const figure = data.figures.find((one) => one.id === panel.dataset.figure);
    const view = panel.dataset.view === "control" ? control : panel.dataset.view;
    const traces = figure.traces.map((trace) => filled(trace, metric, view));
    for (const trace of traces.filter((one) => one.name)) trace.name = wrapped(trace.name, panel.clientWidth - SYMBOL).join("<br>");
    const layout = layoutOf(figure, view, metric, panel.clientWidth);
    const empty = traces.every((trace) => ![trace.x, trace.z, trace.y].every((list) => !list || list.flat().some((v) => v !== null)));
    if (empty) layout.annotations.push({ text: "no numbers for this choice", showarrow: false, xref: "paper", yref: "paper", x: 0.5, y: 0.5 });
    const options = { responsive: true, displaylogo: false, modeBarButtons: [["toImage"]] };
    Plotly.react(panel, withColours(traces, style), withColours(layout, style), options);
    if (view !== "given") panel.setAttribute("aria-label", `${figure.title}: ${titleOf(view, metric)}. The numbers are in the settings table.`);
  }
}

async function loadPlotly() {
  const packed = Uint8Array.from(atob(document.getElementById("plotly-gzip").textContent), (letter) => letter.charCodeAt(0));
  const unpacked = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
  const script = document.createElement("script");
  script.textContent = await new Response(unpacked).text();
  document.head.append(script);
}

async function start() {
  if (typeof DecompressionStream === "undefined") {
    for (const panel of document.querySelectorAll("[data-figure]")) {
      panel.textContent = "This figure needs a browser of 2023 or later; its numbers are in the tables below.";
    }
    return;
  }
  await loadPlotly();
  draw();
  document.getElementById("choose")?.addEventListener("change", draw);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
  let width = innerWidth;
  let waiting;
  addEventListener("resize", () => {
    if (innerWidth === width) return; // a phone hides its address bar
    width = innerWidth;
    clearTimeout(waiting);
    waiting = setTimeout(draw, 150);
  });
  document.documentElement.dataset.ready = "true";
}

if (data) start();
else document.documentElement.dataset.ready = "true";
