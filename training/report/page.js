// The controls of the main figure: choose depths, families and errors, and read values at a step.
// Without this script the figure shows all series.
"use strict";
(() => {
  const figure = document.getElementById("curves");
  const source = document.getElementById("curves-data");
  if (!figure || !source) return;
  const panels = JSON.parse(source.textContent);
  const series = panels.flatMap((panel) => panel.series);
  const drawings = [...figure.querySelectorAll("svg")];
  const hidden = { depth: new Set(), family: new Set(), kind: new Set() };

  const isShown = (one) => Object.entries(hidden).every(([property, values]) => !values.has(String(one[property])));

  const add = (parent, name, properties = {}) =>
    parent.appendChild(Object.assign(document.createElement(name), properties));

  const controls = document.createElement("form");
  controls.className = "controls";

  const choices = (property, title, unit = "") => {
    const group = add(controls, "fieldset");
    add(group, "legend", { textContent: title });
    for (const value of new Set(series.map((one) => String(one[property])))) {
      const label = add(group, "label");
      const box = add(label, "input", { type: "checkbox", checked: true, value });
      label.append(value + unit);
      box.addEventListener("change", () => {
        if (box.checked) hidden[property].delete(value);
        else hidden[property].add(value);
        show();
      });
    }
  };

  choices("depth", "layers");
  choices("family", "networks");
  choices("kind", "error");
  const stepLabel = add(controls, "label", { textContent: "values at step " });
  const steps = Math.max(...panels.map((panel) => panel.steps));
  const slider = add(stepLabel, "input", { type: "range", min: 0, max: steps, step: 1, value: steps });
  const output = add(controls, "output");
  figure.prepend(controls);

  const cursors = drawings.map((drawing, index) => {
    const [, top, , bottom] = panels[index].frame;
    const line = document.createElementNS("http:" + "//www.w3.org/2000/svg", "line");
    line.setAttribute("class", "cursor");
    line.setAttribute("y1", top);
    line.setAttribute("y2", bottom);
    return drawing.appendChild(line);
  });

  const nearest = (points, step) =>
    points.reduce((best, point) => (Math.abs(point[0] - step) < Math.abs(best[0] - step) ? point : best));

  const show = () => {
    const step = Number(slider.value);
    panels.forEach((panel, index) => {
      const [left, , right] = panel.frame;
      const place = left + ((right - left) * step) / panel.steps;
      cursors[index].setAttribute("x1", place);
      cursors[index].setAttribute("x2", place);
      drawings[index].classList.toggle("off", hidden.family.has(panel.family));
      for (const one of panel.series)
        document.getElementById(one.id)?.classList.toggle("off", !isShown(one));
    });
    const several = new Set(series.map((one) => one.seed)).size > 1;
    const values = series.filter((one) => isShown(one) && one.points.length).map((one) => {
      const seed = several ? ` seed ${one.seed}` : "";
      return `${one.network}${seed} ${one.kind} ${nearest(one.points, step)[1].toFixed(2)}%`;
    });
    output.textContent = `Step ${step.toLocaleString("en")}: ${values.join(" · ") || "no series is chosen"}`;
  };

  drawings.forEach((drawing, index) => {
    drawing.addEventListener("pointermove", (event) => {
      const box = drawing.getBoundingClientRect();
      const place = ((event.clientX - box.left) / box.width) * drawing.viewBox.baseVal.width;
      const [left, , right] = panels[index].frame;
      const share = Math.min(1, Math.max(0, (place - left) / (right - left)));
      slider.value = Math.round(share * panels[index].steps);
      show();
    });
  });
  slider.addEventListener("input", show);
  show();
})();
