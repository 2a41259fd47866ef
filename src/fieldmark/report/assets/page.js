// Draws the charts of a page when they come into view; the colours are CSS variables.
"use strict";
(() => {
  const drawn = new WeakSet();

  async function draw(figure) {
    if (drawn.has(figure)) return;
    drawn.add(figure);
    const plot = figure.querySelector(".plot");
    const spec = JSON.parse(figure.querySelector('script[type="application/json"]').textContent);
    if (!figure.classList.contains("fixed")) {
      spec.width = Math.max(spec.usermeta?.narrowest ?? 240, Math.min(plot.clientWidth, 960));
      spec.autosize = { type: "fit-x", contains: "padding" };
    }
    if (plot.clientWidth < 480) spec.config.legend.columns = 1; // else its end is cut off
    const options = {
      ast: true, // no eval: the page's policy forbids it
      actions: false,
      renderer: "svg",
      defaultStyle: false,
      tooltip: { disableDefaultStyle: true },
      loader: { load: () => Promise.reject(new Error("nothing is loaded")) },
    };
    await vegaEmbed(plot, spec, options);
    plot.querySelector("svg").setAttribute("aria-hidden", "true"); // the figure's label says it all
    plot.classList.add("drawn");
  }

  function watch(root) {
    const seen = new IntersectionObserver(
      (entries) => entries.filter((e) => e.isIntersecting).forEach((e) => draw(e.target)),
      { rootMargin: "400px" },
    );
    root.querySelectorAll("figure.chart").forEach((figure) => seen.observe(figure));
  }

  const all = () => Promise.all([...document.querySelectorAll("figure.chart")].map(draw));
  window.fieldmark = { watch, all };
  window.addEventListener("beforeprint", all);
  if (document.readyState === "loading")
    document.addEventListener("DOMContentLoaded", () => watch(document));
  else watch(document);
})();
