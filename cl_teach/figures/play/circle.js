// Points on a circle that pull their partner and push the others.
(function (play) {
  "use strict";
  const { logSumExp, softmax, sum, random } = play.math;

  const math = (play.math.circle = {
    // Points 0 ... n/2 - 1 are first views; the partner of i is i + n/2. InfoNCE: every point looks for its partner
    // among all others; DCL: the partner is not in the sum; "without negatives": there is no sum.
    terms(angles, temperature, loss) {
      const n = angles.length, force = new Array(n).fill(0), shares = [];
      let value = 0;
      for (let i = 0; i < n; i++) {
        const partner = (i + n / 2) % n;
        const logits = angles.map((angle, j) =>
          j === i || (loss === "DCL" && j === partner) ? -Infinity : Math.cos(angles[i] - angle) / temperature);
        const alone = loss === "without negatives";
        const share = alone ? new Array(n).fill(0) : softmax(logits);
        value += (alone ? 0 : logSumExp(logits)) - Math.cos(angles[i] - angles[partner]) / temperature;
        for (let j = 0; j < n; j++) {
          const slope = (share[j] - (j === partner ? 1 : 0)) / temperature / n; // of the loss in this cosine
          const turn = slope * Math.sin(angles[i] - angles[j]);
          force[i] += turn;
          force[j] -= turn;
        }
        shares.push(share);
      }
      return { loss: value / n, force, shares };
    },
    // What the loss is worth when all points are one: a guess.
    collapsed: (n, temperature, loss) =>
      loss === "InfoNCE" ? Math.log(n - 1) : loss === "DCL" ? Math.log(n - 2) : -1 / temperature,
    alignment: (angles) => {
      const half = angles.length / 2;
      return sum(angles.slice(0, half).map((a, i) => 2 - 2 * Math.cos(a - angles[i + half]))) / half;
    },
    uniformity(angles) {
      const terms = [];
      angles.forEach((a, i) => angles.slice(i + 1).forEach((b) => terms.push(-4 * (1 - Math.cos(a - b)))));
      return logSumExp(terms) - Math.log(terms.length);
    },
    // One step down the gradient of the summed loss.
    step: (angles, temperature, loss, rate) => {
      const { force } = math.terms(angles, temperature, loss);
      return angles.map((angle, i) => angle + rate * angles.length * force[i]);
    },
  });

  play.draw.circle = (ui, start) => {
    const { put, shape, number, PALETTE } = ui;
    const n = start.angles.length, half = n / 2, R = start.pictures ? 112 : 128;
    let { angles, temperature, loss } = start, chosen = start.chosen, steps = 0, resting = false, draws = 0;
    const name = (i) => `${start.names[i % half]}${i < half ? 1 : 2}`;
    const at = (angle, radius) => [radius * Math.cos(angle), -radius * Math.sin(angle)];

    const svg = ui.panel("Points on a circle, two of each color belong together", "-180 -180 360 360");
    shape(svg, "circle", { r: R, fill: "none", stroke: "var(--line)", "stroke-width": 1.5 });
    const lines = angles.map(() => shape(svg, "line", { "stroke-linecap": "round" }));
    const arrows = angles.map((_, i) =>
      shape(svg, "path", { fill: "none", stroke: PALETTE[i % half % 8], "stroke-width": 3, "stroke-linejoin": "round" }));
    const points = angles.map((_, i) => {
      const group = shape(svg, "g"), hue = PALETTE[i % half % 8];
      if (start.pictures) {
        const frame = shape(group, "g", { class: "cl-picture" });
        const crop = shape(frame, "svg", { x: -16, y: -16, width: 32, height: 32, viewBox: "0 0 1 1" });
        shape(crop, "image", {
          x: -i, width: start.pictures.n, height: 1, preserveAspectRatio: "none", href: `data:image/webp;base64,${start.pictures.data}`,
        });
        shape(frame, "rect", { x: -16, y: -16, width: 32, height: 32, rx: 3, fill: "none", stroke: hue, "stroke-width": 2.5, class: "cl-ring" });
        group.picture = frame;
        shape(group, "circle", { r: 5, fill: hue });
      } else {
        shape(group, "circle", { r: 12, fill: i < half ? hue : "var(--paper)", stroke: hue, "stroke-width": 3, class: "cl-ring" });
        const ink = i < half ? "var(--paper)" : "var(--ink)";
        shape(group, "text", { "text-anchor": "middle", dy: 4, style: `fill:${ink};font-weight:700;pointer-events:none` }, start.names[i % half]);
      }
      return group;
    });
    const marks = points.map((group, i) =>
      ui.handle(group, {
        label: `point ${name(i)}`, min: 0, max: 360,
        drag: (x, y) => turn(i, Math.atan2(-y, x)),
        move: (dx, dy) => (dy ? next(i, dy) : turn(i, angles[i] + (dx * Math.PI) / 60)),
      }));
    points.forEach((group, i) => {
      group.tabIndex = i ? -1 : 0; // one stop for Tab; up and down go from point to point
      group.addEventListener("focus", () => ((chosen = i), points.forEach((g, j) => (g.tabIndex = j === i ? 0 : -1)), draw()));
    });

    const side = ui.side();
    const setLoss = ui.choice("loss", ["InfoNCE", "DCL", "without negatives"], loss, (v) => ((loss = v), wake()), side);
    const setTemperature = ui.slider({
      label: "temperature", min: 0.03, max: 3, log: true, value: temperature, set: (v) => ((temperature = v), wake()),
    }, side);
    const buttons = ui.row(side);
    const loop = ui.loop(advance, draw, buttons);
    ui.button("Step", () => (loop.stop(), advance(), draw()), buttons);
    ui.button("Shuffle", () => {
      const draw = random(++draws);
      wake(angles.map(() => 2 * Math.PI * draw()));
    }, buttons);
    ui.button("All together", () => {
      const draw = random(++draws);
      wake(angles.map(() => Math.PI / 2 + 0.02 * (draw() - 0.5)));
    }, buttons);
    ui.button("Reset", () => {
      loop.stop();
      ({ temperature, loss, chosen } = start);
      setLoss(loss), setTemperature(temperature);
      steps = 0;
      wake(start.angles);
    }, buttons);
    const show = ui.values(["loss", "all in one point", "alignment", "uniformity"], side);
    ui.hint("Drag a point. By keyboard: left and right turn it, up and down go to the next. Arrows: the force. "
      + "Lines: the shares that the chosen point's softmax gives.", side);

    function wake(to) {
      if (to) angles = to.slice();
      resting = false;
      draw();
    }
    function turn(i, angle) {
      angles = angles.slice();
      angles[i] = angle;
      wake();
    }
    const next = (i, by) => points[(i + Math.sign(by) + n) % n].focus();
    function advance() {
      const before = angles;
      angles = math.step(angles, temperature, loss, 0.05 * temperature * Math.min(1, 10 * temperature)); // small where it is stiff
      steps++;
      resting = angles.every((a, i) => Math.abs(a - before[i]) < 2e-5);
      return !resting;
    }

    function draw() {
      const { loss: value, force, shares } = math.terms(angles, temperature, loss);
      angles.forEach((angle, i) => {
        const [x, y] = at(angle, R);
        put(points[i], { transform: `translate(${x.toFixed(2)} ${y.toFixed(2)})` });
        if (points[i].picture) {
          const [px, py] = at(angle, i < half ? -32 : 32); // first views inside
          put(points[i].picture, { transform: `translate(${px.toFixed(2)} ${py.toFixed(2)})` });
        }
        const turning = n * force[i] * temperature, size = Math.min(70, 34 * Math.abs(turning)), sign = Math.sign(turning);
        const inner = at(angle, start.pictures ? R : R + 22), along = [-Math.sin(angle) * sign, -Math.cos(angle) * sign];
        const tip = [inner[0] + size * along[0], inner[1] + size * along[1]], barb = Math.min(6, size);
        const out = [Math.cos(angle), -Math.sin(angle)];
        const back = (s) => [tip[0] - barb * along[0] + s * barb * out[0] * 0.7, tip[1] - barb * along[1] + s * barb * out[1] * 0.7];
        put(arrows[i], { d: size < 1.5 ? "" : ui.path([inner, tip]) + ui.path([back(1), tip, back(-1)]) });
        const [cx, cy] = chosen === null ? [x, y] : at(angles[chosen], R), partner = chosen !== null && (chosen + half) % n === i;
        const share = chosen === null || i === chosen ? 0 : partner && loss !== "InfoNCE" ? 0 : shares[chosen][i];
        put(lines[i], {
          x1: cx, y1: cy, x2: x, y2: y, "stroke-width": 12 * share, stroke: partner ? "var(--blue)" : "var(--red)", "stroke-opacity": 0.45,
        });
        const degrees = (((angle * 180) / Math.PI) % 360 + 360) % 360;
        const words = size < 1.5 ? "no force" : `pushed ${sign > 0 ? "counterclockwise" : "clockwise"}`;
        marks[i](degrees, `${Math.round(degrees)} degrees, ${words}`);
      });
      const guess = math.collapsed(n, temperature, loss), alignment = math.alignment(angles), uniformity = math.uniformity(angles);
      show({ loss: number(value, 3), "all in one point": number(guess, 3), alignment: number(alignment), uniformity: number(uniformity) });
      ui.say(`${loss} at temperature ${number(temperature)}: loss ${number(value, 3)}; all in one point ${number(guess, 3)}. `
        + `Alignment ${number(alignment)} (0: partners together), uniformity ${number(uniformity)} (lower: more even).`
        + (resting ? ` At rest after ${steps} steps.` : ""));
    }
    draw();
  };
})(globalThis.clPlay);
