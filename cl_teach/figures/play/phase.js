// One mode of linear BYOL: predictor eigenvalue p, feature eigenvalue s, and where a start ends.
(function (play) {
  "use strict";
  const slope = new Float64Array(3);

  const math = (play.math.phase = {
    // Derivatives of p, of the weight w = sqrt(s) and of the target's weight a; with ema = null the target is w itself.
    flow(p, w, a, { rate, noise, decay, ema }, out = slope) {
      const residual = (ema === null ? w : a) - (1 + noise) * p * w;
      out[0] = rate * w * residual - decay * p;
      out[1] = p * residual - decay * w;
      out[2] = ema === null ? out[1] : ema * (w - a);
      return out;
    },
    // Derivatives of p and s where the target follows at once.
    plane(p, s, { rate, noise, decay }) {
      const pull = 1 - (1 + noise) * p;
      return [rate * s * pull - decay * p, 2 * p * s * pull - 2 * decay * s];
    },
    fixedPoints({ noise, decay }) {
      const square = 1 - 4 * decay * (1 + noise);
      if (square < 0) return null;
      return { stable: (1 + Math.sqrt(square)) / (2 * (1 + noise)), unstable: (1 - Math.sqrt(square)) / (2 * (1 + noise)) };
    },
    // One Runge-Kutta step of order four, in place; without arrays in between, because the map takes thousands of them.
    step(y, dt, settings) {
      const p = y[0], w = y[1], a = y[2], d = slope;
      math.flow(p, w, a, settings, d);
      let P = d[0], W = d[1], A = d[2];
      math.flow(p + (dt / 2) * d[0], w + (dt / 2) * d[1], a + (dt / 2) * d[2], settings, d);
      P += 2 * d[0], W += 2 * d[1], A += 2 * d[2];
      math.flow(p + (dt / 2) * d[0], w + (dt / 2) * d[1], a + (dt / 2) * d[2], settings, d);
      P += 2 * d[0], W += 2 * d[1], A += 2 * d[2];
      math.flow(p + dt * d[0], w + dt * d[1], a + dt * d[2], settings, d);
      y[0] = p + (dt / 6) * (P + d[0]), y[1] = w + (dt / 6) * (W + d[1]), y[2] = a + (dt / 6) * (A + d[2]);
    },
    // Points [p, s], one every `every` steps; the target starts as a copy.
    path(p, s, settings, { dt = 0.05, steps = 6000, every = 8 } = {}) {
      const y = [p, Math.sqrt(s), Math.sqrt(s)], points = [[p, s]];
      for (let k = 1; k <= steps; k++) {
        math.step(y, dt, settings);
        if (k % every === 0) points.push([y[0], y[1] * y[1]]);
      }
      return points;
    },
    // Whether a mode that starts at (p, s) is alive in the end. Nothing returns from below both coordinates of the
    // watershed. With a target that follows at once, s - p²/rate keeps its sign, and nothing falls back from above
    // both, as long as p is not to the right of the resting point and s below the curve.
    lives(p, s, settings) {
      const rest = math.fixedPoints(settings), { rate, noise, decay, ema } = settings;
      if (!rest || s === 0) return false;
      const { stable: high, unstable: low } = rest, unit = Math.sqrt(rate), far = ema === null ? low : low + 0.3 * (high - low);
      if (decay === 0 && ema === null) return p * p - rate * s < high * high; // what is conserved tells
      const y = [p, Math.sqrt(s), Math.sqrt(s)];
      for (let k = 0; k < 4000; k++) {
        const w = unit * y[1], a = unit * y[2]; // in the unit in which a rest point has p = w = a
        if (decay > 0 ? y[0] <= low && w <= low && a <= low : w < 1e-3) return false;
        if (y[0] > far && w > far && a > far && (y[0] <= high || w >= y[0] || (y[0] < 1.05 * high && 2 * w > low + high))) return true;
        const fast = (1 + noise) * (w * w + y[0] * y[0]) + decay;
        math.step(y, Math.min(4, 0.4 / (fast + 0.02), 1.5 / (ema || 0.1)), settings);
      }
      return unit * y[1] > Math.max(low, 1e-3);
    },
  });

  play.draw.phase = (ui, start) => {
    const { put, shape, number, clamp } = ui, P = [-0.1, 1.2], S = [0, 1], W = 300, H = 250;
    let settings, here, old = [], points = [], shown = 0;
    const X = (p) => (W * (p - P[0])) / (P[1] - P[0]), Y = (s) => H * (1 - (s - S[0]) / (S[1] - S[0]));

    const svg = ui.panel("Phase plane: predictor eigenvalue p to the right, feature eigenvalue s upward", "-32 -10 344 300");
    const map = shape(svg, "image", { width: W, height: H, preserveAspectRatio: "none", style: "image-rendering:pixelated;opacity:.4" });
    const canvas = ui.html("canvas");
    const plate = shape(svg, "rect", { width: W, height: H, fill: "transparent", stroke: "var(--line)", style: "cursor:crosshair" });
    const clip = shape(svg, "svg", { width: W, height: H, viewBox: `0 0 ${W} ${H}`, style: "overflow:hidden;pointer-events:none" });
    const field = shape(clip, "path", { stroke: "var(--soft)", fill: "none", "stroke-width": 1 });
    const curve = shape(clip, "path", { stroke: "var(--blue)", fill: "none", "stroke-width": 1.5 });
    const trails = shape(clip, "path", { stroke: "var(--soft)", fill: "none", "stroke-width": 1.5, "stroke-dasharray": "4 3" });
    const trail = shape(clip, "path", { stroke: "var(--red)", fill: "none", "stroke-width": 3 });
    const dots = ["stable", "unstable"].map((kind) =>
      shape(svg, "circle", { r: 6, stroke: kind === "stable" ? "var(--blue)" : "var(--ink)", "stroke-width": 2, fill: kind === "stable" ? "var(--blue)" : "var(--paper)", style: "pointer-events:none" }));
    shape(svg, "circle", { cx: X(0), cy: Y(0), r: 6, fill: "var(--ink)" });
    [0, 0.5, 1].forEach((v) => {
      shape(svg, "text", { x: X(v), y: H + 15, "text-anchor": "middle" }, v);
      shape(svg, "text", { x: -6, y: Y(v) + 4, "text-anchor": "end" }, v);
    });
    shape(svg, "text", { x: W, y: H + 32, "text-anchor": "end" }, "predictor eigenvalue p");
    shape(svg, "text", { x: 6, y: 16 }, "feature eigenvalue s");
    const head = shape(svg, "circle", { r: 4, fill: "var(--red)", style: "pointer-events:none" });
    const grip = shape(svg, "g");
    shape(grip, "circle", { r: 15, fill: "transparent" });
    shape(grip, "rect", { x: -8, y: -8, width: 16, height: 16, rx: 3, fill: "var(--red)", stroke: "var(--paper)", "stroke-width": 2, class: "cl-ring" });
    const go = (p, s, keep) => {
      if (keep) old = old.slice(-3).concat([points]);
      here = [clamp(p, ...P), clamp(s, ...S)];
      run();
    };
    const back = (x, y) => [P[0] + (x / W) * (P[1] - P[0]), S[0] + (1 - y / H) * (S[1] - S[0])];
    const mark = ui.handle(grip, {
      label: "start of the mode", min: P[0], max: P[1],
      drag: (x, y) => go(...back(x, y)),
      move: (dx, dy) => go(here[0] + 0.02 * dx, here[1] + 0.02 * dy),
    });
    plate.addEventListener("click", (event) => go(...back(...svg.at(event)), true));

    const side = ui.side(), set = (name) => (v) => ((settings[name] = v), change());
    const at = start.settings, ema = (v) => (v >= 19.9 ? null : v);
    const sliders = {
      decay: ui.slider({ label: "weight decay", min: 0, max: 0.35, step: 0.005, digits: 3, value: at.decay, set: set("decay") }, side),
      rate: ui.slider({ label: "predictor rate", min: 0.25, max: 8, log: true, value: at.rate, set: set("rate") }, side),
      noise: ui.slider({ label: "augmentation noise", min: 0, max: 1.5, step: 0.05, value: at.noise, set: set("noise") }, side),
      ema: ui.slider({
        label: "EMA rate of the target", min: 0.02, max: 20, log: true, value: at.ema === null ? 20 : at.ema,
        format: (v) => (ema(v) === null ? "at once" : number(v)), set: (v) => ((settings.ema = ema(v)), change()),
      }, side),
    };
    const buttons = ui.row(side);
    ui.button("Follow again", () => run(), buttons).classList.add("cl-run");
    ui.button("Reset", () => begin(), buttons);
    const show = ui.values(["start", "alive at p", "watershed", "this start"], side);
    ui.hint("Click anywhere for a start, or drag the square; by keyboard: its arrows. Orange: a start here collapses. "
      + "Blue: it lives. Blue line: s = p²/rate. Open dot: the watershed.", side);

    function begin() {
      settings = { ...at };
      here = start.start.slice();
      Object.keys(sliders).forEach((name) => sliders[name](name === "ema" && at.ema === null ? 20 : at[name]));
      old = [];
      change();
    }
    // Every cell of the map is integrated: a coarse map at once, a fine one when the hand rests.
    function color(columns, rows) {
      canvas.width = columns, canvas.height = rows;
      const pen = canvas.getContext("2d"), image = pen.createImageData(columns, rows);
      for (let i = 0; i < rows; i++)
        for (let j = 0; j < columns; j++) {
          const alive = math.lives(...back(((j + 0.5) * W) / columns, ((i + 0.5) * H) / rows), settings);
          image.data.set(alive ? [86, 160, 233, 255] : [245, 150, 70, 255], 4 * (i * columns + j));
        }
      pen.putImageData(image, 0, 0);
      put(map, { href: canvas.toDataURL() });
    }
    let later = 0;
    function change() {
      old = [];
      color(26, 25);
      clearTimeout(later);
      later = setTimeout(() => color(104, 100), 150);
      let d = "";
      for (let i = 1; i < 13; i++)
        for (let j = 1; j < 10; j++) {
          const p = P[0] + i * 0.1, s = j * 0.1, [dp, ds] = math.plane(p, s, settings);
          const [vx, vy] = [dp / 1.3 * W, -ds * H], size = Math.hypot(vx, vy) || 1, [ux, uy] = [vx / size, vy / size];
          const [x, y] = [X(p) + 7 * ux, Y(s) + 7 * uy];
          d += ui.path([[X(p) - 7 * ux, Y(s) - 7 * uy], [x, y]])
            + ui.path([[x - 4 * ux + 2.5 * uy, y - 4 * uy - 2.5 * ux], [x, y], [x - 4 * ux - 2.5 * uy, y - 4 * uy + 2.5 * ux]]);
        }
      put(field, { d });
      put(curve, { d: ui.path(Array.from({ length: 61 }, (_, k) => [X(k / 50), Y(((k / 50) ** 2) / settings.rate)])) });
      const rest = math.fixedPoints(settings);
      dots.forEach((dot, k) => {
        const p = rest && (k ? rest.unstable : rest.stable), inside = rest && settings.decay > 0 && p * p / settings.rate <= 1.02;
        put(dot, { visibility: inside ? "visible" : "hidden", ...(inside && { cx: X(p), cy: Y((p * p) / settings.rate) }) });
      });
      run();
    }
    const line = (list) => ui.path(list.map(([p, s]) => [X(p), Y(s)]));
    let id = 0;
    function run() {
      cancelAnimationFrame(id);
      points = math.path(...here, settings);
      put(trails, { d: old.map(line).join("") });
      put(grip, { transform: `translate(${X(here[0]).toFixed(1)} ${Y(here[1]).toFixed(1)})` });
      shown = ui.calm ? points.length : 1;
      const grow = () => {
        shown = Math.min(points.length, shown + 6);
        put(trail, { d: line(points.slice(0, shown)) });
        put(head, { cx: X(points[shown - 1][0]), cy: Y(clamp(points[shown - 1][1], 0, 1)) });
        if (shown < points.length && ui.figure.isConnected) id = requestAnimationFrame(grow);
      };
      grow();
      const rest = math.fixedPoints(settings), alive = math.lives(...here, settings), [p, s] = here.map((v) => number(v));
      show({
        start: `p ${p}, s ${s}`, "alive at p": rest ? number(rest.stable) : "nowhere", watershed: rest ? number(rest.unstable) : "none",
        "this start": alive ? "lives" : "collapses",
      });
      mark(here[0], `p ${p}, s ${s}: ${alive ? "lives" : "collapses"}`);
      ui.say(`Weight decay ${number(settings.decay, 3)}, predictor rate ${number(settings.rate)}, noise ${number(settings.noise)}, target follows `
        + `${settings.ema === null ? "at once" : "at rate " + number(settings.ema)}: ` + (rest ? `a mode can rest at p = ${number(rest.stable)}, the watershed is p = ${number(rest.unstable)}. ` : "every mode collapses. ")
        + `The start p = ${p}, s = ${s} ${alive ? "lives" : "collapses"}.`);
    }
    begin();
  };
})(globalThis.clPlay);
