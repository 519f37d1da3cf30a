"use strict";
const colour = name => getComputedStyle(document.documentElement).getPropertyValue("--" + name).trim();

/* The figure in this page's colours for its roles, light or dark. */
function themed(text) {
  const figure = JSON.parse(text), layout = figure.layout;
  Object.assign(layout.template.layout.font ??= {}, {color: colour("soft"), family: getComputedStyle(document.body).fontFamily});
  layout.hoverlabel = {bgcolor: colour("paper"), bordercolor: colour("strong"), font: {color: colour("ink")}};
  for (const trace of figure.data) {
    const own = trace.meta && trace.meta.role && colour(trace.meta.role);
    if (!own) continue;
    if (trace.line) trace.line.color = own;
    if (trace.marker) trace.marker.color = own;
  }
  return figure;
}

function draw(plot) {
  const figure = themed(plot.querySelector("script").textContent), where = plot.querySelector("div");
  Plotly.react(where, figure.data, figure.layout, {displayModeBar: false});
  if (plot.classList.contains("drawn")) return;
  plot.classList.add("drawn");
  where.on("plotly_afterplot", () => scalable(where));
  scalable(where);
  sizes.observe(plot);
}

/* In print, where nothing can be redrawn, a plot scales like a picture. */
function scalable(where) {
  for (const svg of where.querySelectorAll("svg.main-svg"))
    svg.setAttribute("viewBox", `0 0 ${svg.getAttribute("width")} ${svg.getAttribute("height")}`);
}

const sizes = new ResizeObserver(changed => {
  for (const {target, contentRect} of changed) {
    const drawn = target.querySelector("div");
    if (contentRect.width > 0 && drawn._fullLayout?.width !== Math.round(contentRect.width)) Plotly.Plots.resize(drawn);
  }
});

/* Two hundred trials have four hundred plots: each is drawn when it comes near the window. */
const watcher = new IntersectionObserver(seen => {
  for (const {isIntersecting, target} of seen) if (isIntersecting) { watcher.unobserve(target); draw(target); }
}, {rootMargin: "300px"});
document.querySelectorAll(".plot").forEach(plot => watcher.observe(plot));
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => document.querySelectorAll(".plot.drawn").forEach(draw));
