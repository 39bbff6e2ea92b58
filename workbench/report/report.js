"use strict";
(() => {
  const root = document.documentElement;
  const button = document.getElementById("theme");
  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  const plots = [];

  // What differs between the themes inside a figure: text and hover boxes. Everything else is chosen to sit on both.
  const colours = () => {
    const style = getComputedStyle(root);
    const read = (name) => style.getPropertyValue(name).trim();
    return { "font.color": read("--soft"), "hoverlabel.bgcolor": read("--card"), "hoverlabel.font.color": read("--ink"),
             "modebar.color": read("--soft"), "modebar.activecolor": read("--accent"), "modebar.bgcolor": "rgba(0,0,0,0)" };
  };
  const paint = () => plots.forEach((plot) => Plotly.relayout(plot, colours()));
  const setTheme = (name) => {
    root.dataset.theme = name;
    button.textContent = name === "dark" ? "Light theme" : "Dark theme";
    button.setAttribute("aria-pressed", String(name === "dark"));
    paint();
  };

  const options = { responsive: true, displaylogo: false, displayModeBar: "hover",
                    modeBarButtonsToRemove: ["select2d", "lasso2d", "sendDataToCloud"],
                    toImageButtonOptions: { format: "svg" } };
  setTheme(dark.matches ? "dark" : "light");
  for (const spec of document.querySelectorAll("script.spec")) {
    const plot = document.getElementById(spec.dataset.plot);
    const figure = JSON.parse(spec.textContent);
    Plotly.newPlot(plot, figure.data, figure.layout, options).then(() => {
      plots.push(plot);
      Plotly.relayout(plot, colours());
    });
  }
  button.addEventListener("click", () => setTheme(root.dataset.theme === "dark" ? "light" : "dark"));
  dark.addEventListener("change", (event) => setTheme(event.matches ? "dark" : "light"));
})();
