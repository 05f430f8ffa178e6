// The linear contrastive learner: strength and augmentation of each feature as bars, learning curves at once.
(function (play) {
  "use strict";

  const math = (play.math.modes = {
    signal: (phi, alpha) => (1 - alpha) * phi * phi,
    variance: (phi, noise) => phi * phi + noise,
    rest: (c, m) => Math.sqrt(c) / m,
    // Weight after time t, from weight s0: one layer is a logistic curve in its square, two layers by bisection.
    one(t, c, m, s0) {
      const y0 = s0 * s0;
      return Math.sqrt(c > 0 ? y0 / (Math.exp(-8 * c * t) + (m * m * y0 * -Math.expm1(-8 * c * t)) / c) : y0 / (1 + 8 * m * m * y0 * t));
    },
    time(s, c, m, s0) {
      const root = Math.sqrt(c);
      const F = (x) => -1 / (c * x) + (m / (2 * c * root)) * Math.log(Math.abs((root + m * x) / (root - m * x)));
      return (F(s) - F(s0)) / 8;
    },
    two(t, c, m, s0) {
      if (!(c > 0)) return s0 / Math.cbrt(1 + 24 * m * m * t * s0 ** 3);
      let near = s0, far = math.rest(c, m);
      for (let k = 0; k < 60; k++) {
        const middle = (near + far) / 2;
        if (math.time(middle, c, m, s0) < t) near = middle;
        else far = middle;
      }
      return near;
    },
    // When half of the final weight is learned; null where there is nothing to learn.
    half(c, m, s0, layers) {
      const end = math.rest(c, m);
      if (!(c > 0) || s0 >= end / 2) return null;
      return layers === 2 ? math.time(end / 2, c, m, s0) : Math.log(((end / s0) ** 2 - 1) / 3) / (8 * c);
    },
  });

  play.draw.modes = (ui, start) => {
    const { put, shape, number, clamp, PALETTE } = ui, n = start.names.length;
    let strength, augmentation, noise, layers, begin0;

    // The bars: two a feature.
    const bars = ui.panel("Bars: strength and augmentation of every feature", "-34 -24 364 236");
    const H = 150, width = 330 / n, MOST = 2;
    [0, 1, 2].forEach((v) => {
      shape(bars, "line", { x1: 0, x2: 326, y1: H * (1 - v / MOST), y2: H * (1 - v / MOST), stroke: "var(--line)" });
      shape(bars, "text", { x: -6, y: H * (1 - v / MOST) + 4, "text-anchor": "end" }, v);
    });
    shape(bars, "text", { x: -30, y: -12 }, "filled: strength · open: augmentation (0 to 1)");
    const pulled = [];
    start.names.forEach((name, i) => {
      const hue = PALETTE[i], left = i * width + 8;
      shape(bars, "text", { x: left + width / 2 - 8, y: H + 20, "text-anchor": "middle", style: "font-weight:700" }, name);
      [["strength", MOST, () => strength], ["augmentation", 1, () => augmentation]].forEach(([what, most, list], k) => {
        const group = shape(bars, "g"), w = Math.min(30, width / 2 - 10), x = left + k * (w + 6);
        shape(group, "rect", { x: x - 3, y: -8, width: w + 6, height: H + 10, fill: "transparent" });
        const bar = shape(group, "rect", { x, width: w, fill: k ? "var(--paper)" : hue, stroke: hue, "stroke-width": 2.5 });
        const knob = shape(group, "rect", { x: x - 3, width: w + 6, height: 7, rx: 3, fill: "var(--ink)", stroke: "var(--paper)", class: "cl-ring" });
        const words = shape(group, "text", { x: x + w / 2, y: H + 36, "text-anchor": "middle" });
        const change = (v) => ((list()[i] = clamp(Math.round(20 * v) / 20, 0, most)), draw());
        const mark = ui.handle(group, {
          label: `${what} of ${name}`, min: 0, max: most,
          drag: (_, y) => change(most * (1 - y / H)), move: (dx, dy) => change(list()[i] + 0.05 * (dx + dy)),
        });
        pulled.push(() => {
          const v = list()[i], y = H * (1 - v / most);
          put(bar, { y, height: H - y });
          put(knob, { y: y - 3.5 });
          words.textContent = number(v);
          mark(v, number(v));
        });
      });
    });

    // The curves.
    const plot = ui.panel("Learning curves: weight of every feature over time", "-34 -12 400 236"), W = 290, T = start.time;
    const axis = [0, 0.5, 1].map((v) => [
      shape(plot, "line", { x1: 0, x2: W, stroke: "var(--line)" }), shape(plot, "text", { x: -6, "text-anchor": "end" }, v), v,
    ]);
    [0, 0.5, 1].forEach((v) => shape(plot, "text", { x: v * W, y: 192, "text-anchor": "middle" }, number(v * T, 0)));
    shape(plot, "text", { x: W, y: 210, "text-anchor": "end" }, "time");
    const curves = PALETTE.slice(0, n).map((hue) => shape(plot, "path", { fill: "none", stroke: hue, "stroke-width": 2.5, "stroke-linejoin": "round" }));
    const labels = start.names.map((name) => shape(plot, "text", { x: W + 6 }, name));

    const side = ui.side();
    const setLayers = ui.choice("layers", ["1", "2"], String(start.layers), (v) => ((layers = +v), draw()), side);
    const setNoise = ui.slider({ label: "noise", min: 0.05, max: 1, step: 0.05, value: start.noise, set: (v) => ((noise = v), draw()) }, side);
    const setStart = ui.slider({ label: "start weight", min: 0.001, max: 0.2, log: true, digits: 3, value: start.start, set: (v) => ((begin0 = v), draw()) }, side);
    const show = ui.values(start.names.map((name) => `${name}: half at → end`), side);
    const buttons = ui.row(side);
    ui.button("Reset", () => begin(), buttons);
    ui.hint("Pull the bars, or use the arrow keys on them. Strong augmentation draws a feature's sign anew: it leaves less signal.", side);

    function begin() {
      [strength, augmentation] = [start.strength.slice(), start.augmentation.slice()];
      [noise, layers, begin0] = [start.noise, start.layers, start.start];
      setLayers(String(layers)), setNoise(noise), setStart(begin0);
      draw();
    }
    function draw() {
      pulled.forEach((act) => act());
      const c = strength.map((phi, i) => math.signal(phi, augmentation[i])), m = strength.map((phi) => math.variance(phi, noise));
      const weight = (t, i) => (layers === 2 ? math.two : math.one)(t, c[i], m[i], begin0);
      const ends = c.map((_, i) => math.rest(c[i], m[i])), halves = c.map((_, i) => math.half(c[i], m[i], begin0, layers));
      const top = Math.max(1, ...ends) * 1.08, Y = (w) => 176 * (1 - w / top);
      axis.forEach(([line, words, v]) => (put(line, { y1: Y(v), y2: Y(v) }), put(words, { y: Y(v) + 4 })));
      const last = c.map((_, i) => weight(T, i));
      curves.forEach((curve, i) =>
        put(curve, { d: ui.path(Array.from({ length: 131 }, (_, k) => [(W * k) / 130, Y(weight((T * k) / 130, i))])) }));
      // Names at the ends of their lines, at least 14 apart.
      let below = Infinity;
      last.map((w, i) => [Y(w), i]).sort((a, b) => b[0] - a[0]).forEach(([y, i]) => {
        below = Math.min(y + 4, below - 14);
        put(labels[i], { y: below, style: `fill:${PALETTE[i]};font-weight:700` });
      });
      const when = (i) => (halves[i] === null ? "never" : number(halves[i], 1));
      show(Object.fromEntries(start.names.map((name, i) => [`${name}: half at → end`, `${when(i)} → ${number(ends[i])}`])));
      const learned = start.names.map((_, i) => i).filter((i) => halves[i] !== null && halves[i] <= T).sort((a, b) => halves[a] - halves[b]);
      const largest = ends.indexOf(Math.max(...ends)), late = start.names.filter((_, i) => !learned.includes(i));
      ui.say(`${layers === 2 ? "Two layers" : "One layer"}. Learned in this order: ${learned.map((i) => start.names[i] + " (time " + when(i) + ")").join(", ") || "none"}. `
        + (late.length ? `Not within time ${number(T, 0)}: ${late.join(", ")}. ` : "") + `Largest in the end: ${start.names[largest]}, ${number(ends[largest])}.`);
    }
    begin();
  };
})(globalThis.clPlay);
