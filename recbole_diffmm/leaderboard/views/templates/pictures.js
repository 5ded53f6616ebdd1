"use strict";
// Draws the figures of the page when they come into sight, in the colours of light or dark.
const pictures = (() => {
  const NAMED = 24; // points with their names beside them
  const NARROW = 520; // pixels below which names stand in the legend and a finger scrolls the page
  const drawn = new Map();
  const hidden = new Map();
  const dark = matchMedia("(prefers-color-scheme: dark)");
  let library, content;

  async function inflate(id) {
    const packed = atob(document.getElementById(id).textContent);
    const bytes = new Uint8Array(packed.length);
    for (let i = 0; i < packed.length; i++) bytes[i] = packed.charCodeAt(i);
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
    return new Response(stream).text();
  }

  function data() {
    content ??= inflate("pictures-data").then(JSON.parse);
    return content;
  }

  function plotly() {
    library ??= inflate("plotly-packed").then((text) => {
      const script = document.createElement("script");
      script.textContent = text;
      document.head.append(script);
      return window.Plotly;
    });
    return library;
  }

  const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

  // Only values of keys that name a colour are looked up: a row may be called `--c0`.
  function themed(value, colour = false) {
    if (typeof value === "string") return colour && value.startsWith("--") ? css(value) : value;
    if (Array.isArray(value)) return value.map((entry) => (typeof entry === "number" ? entry : themed(entry, colour)));
    if (value === null || typeof value !== "object") return value;
    return Object.fromEntries(Object.entries(value).map(([key, inner]) => [key, themed(inner, colour || /color/.test(key))]));
  }

  function traces(figure, group, narrow) {
    const away = hidden.get(group) || new Set();
    const rows = [...new Set(figure.data.map((trace) => trace.row))].filter((row) => row !== undefined && !away.has(row));
    const shown = new Set(rows.slice(0, figure.most));
    return figure.data
      .filter((trace) => trace.row === undefined || shown.has(trace.row))
      .map(({ row, ...trace }) => {
        const result = themed(trace);
        if (result.mode === "markers+text" && (narrow || shown.size > NAMED)) result.mode = "markers";
        return result;
      });
  }

  function layout(figure, entries, narrow, width) {
    const axis = {
      automargin: true,
      gridcolor: css("--line"),
      linecolor: css("--line-strong"),
      zerolinecolor: css("--line-strong"),
      zeroline: false,
      ticks: "",
      fixedrange: narrow,
    };
    const own = themed(figure.layout);
    // Names that stood beside points have no room on a phone.
    const lost = figure.data.some((trace) => trace.mode === "markers+text") && (narrow || entries > NAMED);
    const legend = entries > 0 && (own.showlegend !== false || lost);
    // The legend stands above the picture and takes no room from it.
    const across = Math.max(1, Math.floor(width / 150));
    return {
      font: { family: css("--sans"), size: 12, color: css("--ink-soft") },
      paper_bgcolor: "rgba(0,0,0,0)",
      plot_bgcolor: "rgba(0,0,0,0)",
      margin: { l: 16, r: 16, t: narrow ? 16 : 28, b: 16 },
      hovermode: "closest",
      hoverlabel: { bgcolor: css("--raised"), bordercolor: css("--line-strong"), font: { color: css("--ink") } },
      dragmode: narrow ? false : "zoom",
      ...own,
      xaxis: { ...axis, ...own.xaxis },
      yaxis: { ...axis, ...own.yaxis },
      height: own.height + (legend ? 20 * Math.ceil(entries / across) : 0),
      legend: { orientation: "h", x: 0, xanchor: "left", y: 1.02, yanchor: "bottom", font: { size: 12 } },
      modebar: { bgcolor: "rgba(0,0,0,0)", color: css("--line-strong"), activecolor: css("--ink") },
      showlegend: legend,
    };
  }

  async function draw(div, figure, group) {
    try {
      drawn.set(div, { figure, group });
      const Plotly = await plotly();
      const width = div.clientWidth;
      const narrow = width < NARROW;
      const shown = traces(figure, group, narrow);
      const entries = shown.filter((trace) => trace.name !== undefined && trace.showlegend !== false).length;
      await Plotly.react(div, shown, layout(figure, entries, narrow, width), {
        responsive: true,
        displaylogo: false,
        displayModeBar: narrow ? false : "hover",
        modeBarButtons: [["toImage", "resetScale2d"]],
        toImageButtonOptions: { format: "svg", filename: figure.name || "picture" },
      });
      div.dataset.theme = dark.matches ? "dark" : "light";
    } catch (error) {
      drawn.delete(div);
      div.style.minHeight = "0";
      div.textContent = "This browser cannot draw the picture; its numbers stand below.";
      const numbers = div.parentElement.querySelector("details.numbers");
      if (numbers) numbers.open = true;
      console.warn(error);
    }
  }

  const redraw = (wanted = () => true) => {
    for (const [div, { figure, group }] of drawn) if (div.isConnected && wanted(group)) draw(div, figure, group);
  };
  dark.addEventListener("change", () => redraw());

  const sight = new IntersectionObserver(
    (entries) => {
      for (const { target, isIntersecting } of entries) {
        if (!isIntersecting) continue;
        sight.unobserve(target);
        data().then((all) => draw(target, all.figures[target.dataset.figure], target.dataset.group));
      }
    },
    { rootMargin: "200px" },
  );
  for (const div of document.querySelectorAll(".plot[data-figure]")) sight.observe(div);

  return {
    data,
    draw,
    // Rows of a table that its pictures leave out.
    hide(group, rows) {
      hidden.set(group, rows);
      redraw((other) => other === group);
    },
  };
})();
