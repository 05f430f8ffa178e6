// A sorting network whose comparators swap softly; numbers to be dragged.
(function (play) {
  "use strict";

  const math = (play.math.sorting = {
    // Odd-even transposition in n layers. After every layer: the values, and P, where input r is spread over the wires.
    sort(x, steepness) {
      const n = x.length;
      let values = x.slice(), P = x.map((_, r) => x.map((_, c) => (r === c ? 1 : 0)));
      const layers = [{ values, P }], swaps = [];
      for (let layer = 0; layer < n; layer++) {
        values = values.slice();
        P = P.map((row) => row.slice());
        for (let a = layer % 2; a < n - 1; a += 2) {
          const keep = Math.atan(steepness * (values[a + 1] - values[a])) / Math.PI + 0.5;
          const mix = (row) => {
            [row[a], row[a + 1]] = [keep * row[a] + (1 - keep) * row[a + 1], (1 - keep) * row[a] + keep * row[a + 1]];
          };
          mix(values);
          P.forEach(mix);
          swaps.push({ layer, wire: a, share: 1 - keep });
        }
        layers.push({ values, P });
      }
      return { layers, swaps, values, P };
    },
  });

  play.draw.sorting = (ui, start) => {
    const { put, shape, number, clamp, PALETTE } = ui, n = start.values.length;
    const TRACK = 84, gap = 34, left = 124, wide = (352 - left - 38) / n, Y = (wire) => 20 + (n - 1 - wire) * gap;
    let values, steepness, followed;

    const svg = ui.panel("A sorting network: inputs on the left, the largest should end on top", `0 -14 360 ${n * gap + 18}`);
    shape(svg, "text", { x: 4, y: -2 }, "drag a number");
    shape(svg, "text", { x: 356, y: -2, "text-anchor": "end" }, "sorted");
    const tracks = start.values.map((_, i) => {
      shape(svg, "line", { x1: 6, x2: TRACK, y1: Y(i), y2: Y(i), stroke: "var(--line)", "stroke-width": 4, "stroke-linecap": "round" });
      const group = shape(svg, "g");
      shape(group, "circle", { r: 16, fill: "transparent" });
      const knob = shape(group, "circle", { r: 10, stroke: "var(--paper)", "stroke-width": 2, class: "cl-ring" });
      if (start.positive === i) shape(group, "text", { "text-anchor": "middle", dy: 5, style: "fill:var(--paper);font-weight:700;font-size:15px;pointer-events:none" }, "+");
      const words = shape(svg, "text", { x: left - 4, y: Y(i) + 4, "text-anchor": "end", style: "font-weight:700;font-size:11px" });
      const change = (v) => ((values[i] = clamp(Math.round(50 * v) / 50, 0, 1)), draw());
      const mark = ui.handle(group, {
        label: `number on wire ${i + 1}${start.positive === i ? ", the positive" : ""}`, min: 0, max: 1,
        drag: (x) => change((x - 16) / (TRACK - 26)), move: (dx, dy) => change(values[i] + 0.02 * (dx + dy)),
      });
      group.addEventListener("focus", () => ((followed = i), draw()));
      return () => {
        put(group, { transform: `translate(${16 + values[i] * (TRACK - 26)} ${Y(i)})` });
        put(knob, { fill: followed === i ? "var(--blue)" : "var(--soft)" });
        words.textContent = number(values[i]);
        mark(values[i], `${number(values[i])}`);
      };
    });
    const wires = [];
    for (let layer = 0; layer <= n; layer++)
      for (let wire = 0; wire < n; wire++) {
        const ends = { x1: left + (layer - (layer ? 0.5 : 0)) * wide, x2: left + (layer + 0.5) * wide, y1: Y(wire), y2: Y(wire) };
        shape(svg, "line", { ...ends, stroke: "var(--line)" });
        wires.push({ layer, wire, line: shape(svg, "line", { ...ends, stroke: "var(--blue)" }) });
      }
    const comparators = math.sort(start.values, 1).swaps.map(({ layer, wire }) => {
      const x = left + (layer + 0.5) * wide;
      shape(svg, "path", { d: ui.path([[x, Y(wire)], [x, Y(wire + 1)]]), stroke: "var(--ink)", "stroke-width": 1.5 });
      [0, 1].forEach((k) => shape(svg, "circle", { cx: x, cy: Y(wire + k), r: 3, fill: "var(--ink)" }));
      return shape(svg, "text", { x: x + 3, y: (Y(wire) + Y(wire + 1)) / 2 + 4, style: "font-size:11px" });
    });
    const outputs = start.values.map((_, wire) => shape(svg, "text", { x: 358, y: Y(wire) + 4, "text-anchor": "end", style: "font-weight:700" }));
    const side = ui.side();
    const setSteepness = ui.slider({
      label: "steepness", min: 0.1, max: 1000, log: true, value: start.steepness, format: (v) => (v < 10 ? number(v, 1) : number(v, 0)), set: (v) => ((steepness = v), draw()),
    }, side);
    const buttons = ui.row(side);
    ui.button("Reset", () => begin(), buttons);
    ui.button("All equal", () => ((values = values.map(() => 0.5)), draw()), buttons);
    const show = ui.values(["followed number", "ends at its place", "ends on top", "its first swap"], side);
    ui.hint("Drag a number, or use the arrow keys on it; the last one touched is followed, in blue: the wider the line, the more of it is on this wire. "
      + "Numbers at the comparators: percent swapped.", side);

    function begin() {
      values = start.values.slice();
      steepness = start.steepness;
      followed = start.positive === null ? n - 1 : start.positive;
      setSteepness(steepness);
      draw();
    }
    function draw() {
      const { layers, swaps, values: out, P } = math.sort(values, steepness);
      tracks.forEach((act) => act());
      wires.forEach(({ layer, wire, line }) => put(line, { "stroke-width": (12 * layers[layer].P[followed][wire]).toFixed(2) }));
      comparators.forEach((words, k) => (words.textContent = Math.round(100 * swaps[k].share)));
      outputs.forEach((words, wire) => (words.textContent = number(out[wire])));
      const place = values.filter((v, i) => v < values[followed] || (v === values[followed] && i < followed)).length;
      const first = swaps.find(({ wire }) => wire === followed || wire === followed - 1);
      const home = Math.round(100 * P[followed][place]), top = Math.round(100 * P[followed][n - 1]);
      show({
        "followed number": number(values[followed]), "ends at its place": `${home} %`, "ends on top": `${top} %`,
        "its first swap": `${Math.round(100 * first.share)} %`,
      });
      ui.say(`Steepness ${number(steepness, steepness < 10 ? 1 : 0)}: the number ${number(values[followed])} should end on wire ${place + 1} of ${n}, counted from below; `
        + `${home} % of it do. ${top} % end on top. Sorted values: ${out.map((v) => number(v)).join(", ")}.`);
    }
    begin();
  };
})(globalThis.clPlay);
