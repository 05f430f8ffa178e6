// A policy over a few answers, softmax(W h), pushed by a preference: who gains, who loses?
(function (play) {
  "use strict";
  const { softmax, logSumExp, sum, dot, random } = play.math;

  const math = (play.math.preferences = {
    logits: ({ W, h }) => W.map((row) => dot(row, h)),
    probabilities: (model) => softmax(math.logits(model)),
    logProbabilities(model) {
      const logits = math.logits(model), total = logSumExp(logits);
      return logits.map((v) => v - total);
    },
    // Loss and its slope in the logits. `samples` are answers drawn from the policy, worth 1 if chosen and else 0.
    loss(model, kind, { chosen, rejected, beta, reference, samples }) {
      const log = math.logProbabilities(model), p = log.map(Math.exp), one = (a) => p.map((_, z) => (z === a ? 1 : 0));
      if (kind === "likelihood") return { loss: -log[chosen], slope: p.map((v, z) => v - one(chosen)[z]) };
      if (kind === "on-policy") {
        const worth = samples.map((a) => (a === chosen ? 1 : 0)), mean = sum(worth) / worth.length;
        const spread = Math.sqrt(sum(worth.map((r) => (r - mean) ** 2)) / worth.length) + 1e-12;
        const gain = worth.map((r) => (r - mean) / spread), slope = p.map(() => 0);
        samples.forEach((a, k) => p.forEach((v, z) => (slope[z] -= (gain[k] * ((z === a ? 1 : 0) - v)) / samples.length)));
        return { loss: -sum(samples.map((a, k) => gain[k] * log[a])) / samples.length, slope };
      }
      const margin = log[chosen] - log[rejected] - reference, off = margin - 1 / (2 * beta);
      const sigmoid = 1 / (1 + Math.exp(beta * margin));
      const [loss, push] = kind === "DPO" ? [-Math.log1p(-sigmoid), -beta * sigmoid] : [off * off, 2 * off];
      return { loss, slope: p.map((_, z) => push * (one(chosen)[z] - one(rejected)[z])) };
    },
    // One step of gradient descent on unembeddings W and state h.
    step({ W, h }, slope, rate) {
      const pull = h.map((_, d) => sum(W.map((row, z) => row[d] * slope[z])));
      return { W: W.map((row, z) => row.map((v, d) => v - rate * slope[z] * h[d])), h: h.map((v, d) => v - rate * pull[d]) };
    },
    // How fast every log-probability changes under gradient flow.
    velocity({ W, h }, slope) {
      const pull = h.map((_, d) => sum(W.map((row, z) => row[d] * slope[z]))), p = math.probabilities({ W, h });
      const logit = W.map((row, z) => -slope[z] * dot(h, h) - dot(row, pull)), mean = dot(p, logit);
      return logit.map((v) => v - mean);
    },
    sample(p, count, draw) {
      return Array.from({ length: count }, () => {
        let left = draw(), z = 0;
        while (z < p.length - 1 && left >= p[z]) left -= p[z++];
        return z;
      });
    },
  });

  play.draw.preferences = (ui, start) => {
    const { put, html, shape, number, clamp, PALETTE } = ui, n = start.names.length, SAMPLES = 8;
    let model, first, kind, beta, chosen, rejected, steps, draws, samples;

    const left = ui.block("cl-panel");
    const rows = start.names.map((name, z) => {
      const bar = html("div", { style: `height:100%;background:${PALETTE[z]};border-radius:.2em` });
      const ghost = html("div", { style: "position:absolute;top:-2px;bottom:-2px;width:0;border-left:3px solid var(--ink)" });
      const trend = html("span", { style: "font-variant-numeric:tabular-nums;text-align:right" });
      const buttons = ["chosen", "rejected"].map((role) => {
        const node = html("button", { type: "button", style: "padding:0;min-height:2em;width:2em", "aria-label": `${name}: ${role}` }, role === "chosen" ? "✓" : "✗");
        node.addEventListener("click", () => pick(role, z));
        return node;
      });
      const line = html("div", { style: "display:grid;grid-template-columns:4.2em 1fr 5.4em 2em 2em;gap:.4em;align-items:center;margin:.25em 0" },
        html("span", { style: "font-weight:600" }, name),
        html("div", { style: "position:relative;height:1.5em;background:color-mix(in srgb,var(--soft) 18%,transparent);border-radius:.2em" }, bar, ghost), trend, ...buttons);
      left.append(line);
      return { bar, ghost, trend, buttons };
    });
    const svg = (() => {
      const box = ui.panel("Plane: an arrow for the state h and a point for the vector of every answer", "-160 -130 320 260");
      left.append(box.parentNode);
      return box;
    })();
    const SCALE = 34;
    shape(svg, "path", { d: "M-155 0H155M0 -125V125", stroke: "var(--line)" });
    const arrow = shape(svg, "line", { x1: 0, y1: 0, stroke: "var(--ink)", "stroke-width": 3 });
    const grip = (hue, words, label, get, set) => {
      const group = shape(svg, "g");
      shape(group, "circle", { r: 14, fill: "transparent" });
      shape(group, "circle", { r: 8, fill: hue, stroke: "var(--paper)", "stroke-width": 2, class: "cl-ring" });
      shape(group, "text", { x: 11, y: 4, style: "font-weight:700;paint-order:stroke;stroke:var(--paper);stroke-width:3px" }, words);
      const to = (x, y) => (set([clamp(x, -4.5, 4.5), clamp(y, -3.6, 3.6)]), rebase());
      const mark = ui.handle(group, {
        label, min: -4.5, max: 4.5, drag: (x, y) => to(x / SCALE, -y / SCALE), move: (dx, dy) => to(get()[0] + 0.1 * dx, get()[1] + 0.1 * dy),
      });
      return () => {
        const [x, y] = get();
        put(group, { transform: `translate(${(clamp(x, -4.6, 4.6) * SCALE).toFixed(1)} ${(-clamp(y, -3.7, 3.7) * SCALE).toFixed(1)})` });
        mark(x, `${number(x, 1)} right, ${number(y, 1)} up`);
      };
    };
    const grips = start.names.map((name, z) => grip(PALETTE[z], name, `vector of ${name}`, () => model.W[z], (v) => (model.W[z] = v)));
    grips.push(grip("var(--ink)", "h", "state h", () => model.h, (v) => (model.h = v)));

    const side = ui.side();
    const setKind = ui.choice("push by", ["DPO", "IPO", "likelihood", "on-policy"], start.loss, (v) => ((kind = v), rebase()), side);
    const setBeta = ui.slider({ label: "beta", min: 0.05, max: 2, log: true, value: start.beta, set: (v) => ((beta = v), rebase()) }, side);
    const buttons = ui.row(side);
    const loop = ui.loop(() => advance(), () => draw(), buttons);
    ui.button("Step", () => (loop.stop(), advance(), draw()), buttons);
    ui.button("Reset", () => begin(), buttons);
    const show = ui.values(["steps", "loss", "log π chosen", "log π rejected"], side);
    const drawn = ui.block("cl-drawn", side);
    ui.hint("✓ marks the answer that is preferred, ✗ the other one. Black line: the policy at the start. Drag the vectors: answers with like vectors are hard to tell apart. "
      + "On-policy: eight answers drawn from the policy a step, worth 1 if chosen and else 0.", side);

    function begin() {
      loop.stop();
      [kind, beta, chosen, rejected] = [start.loss, start.beta, start.chosen, start.rejected];
      setKind(kind), setBeta(beta);
      model = { W: start.vectors.map((row) => row.slice()), h: start.state.slice() };
      rebase();
    }
    function pick(role, z) {
      if (role === "chosen") [chosen, rejected] = [z, rejected === z ? chosen : rejected];
      else [rejected, chosen] = [z, chosen === z ? rejected : chosen];
      rebase();
    }
    function rebase() { // what is now is the reference
      first = math.logProbabilities(model);
      steps = 0;
      draws = random(1);
      draw();
    }
    const terms = () => {
      const settings = { chosen, rejected, beta, reference: first[chosen] - first[rejected], samples };
      return math.loss(model, kind, settings);
    };
    function advance() {
      samples = math.sample(math.probabilities(model), SAMPLES, draws);
      const { slope } = terms(), rate = kind === "IPO" ? 0.0012 : kind === "DPO" ? 0.03 / Math.sqrt(beta) : 0.01;
      model = math.step(model, slope, rate);
      steps++;
      const rests = kind !== "on-policy" && Math.max(...slope.map(Math.abs)) < 1e-5;
      return steps % 600 !== 0 && !rests; // a pause after ten seconds
    }
    function draw() {
      const log = math.logProbabilities(model), p = log.map(Math.exp);
      if (!steps) samples = math.sample(p, SAMPLES, random(1));
      const { loss, slope } = terms(), velocity = math.velocity(model, slope);
      rows.forEach(({ bar, ghost, trend, buttons }, z) => {
        bar.style.width = `${100 * p[z]}%`;
        ghost.style.left = `calc(${100 * Math.exp(first[z])}% - 1.5px)`;
        trend.textContent = `${number(100 * p[z], 1)} % ${velocity[z] > 1e-4 ? "↑" : velocity[z] < -1e-4 ? "↓" : "·"}`;
        buttons.forEach((node, k) => node.setAttribute("aria-pressed", z === (k ? rejected : chosen)));
      });
      grips.forEach((act) => act());
      put(arrow, { x2: model.h[0] * SCALE, y2: -model.h[1] * SCALE });
      const change = log.map((v, z) => v - first[z]), name = (z) => start.names[z];
      const sign = (v) => (v > 0 ? "+" : "") + number(v);
      show({ steps, loss: number(loss, 3), "log π chosen": `${number(log[chosen])} (${sign(change[chosen])})`, "log π rejected": `${number(log[rejected])} (${sign(change[rejected])})` });
      drawn.textContent = kind === "on-policy" && steps ? `drawn: ${samples.map(name).join(", ")}` : "";
      const gained = change.indexOf(Math.max(...change)), lost = steps > 0 && change[chosen] < -0.01;
      ui.say(`${kind}, ${steps} steps: ${start.names.map((word, z) => word + " " + number(100 * p[z], 0) + " %").join(", ")}. `
        + (!steps ? `Chosen: ${name(chosen)}, rejected: ${name(rejected)}. Arrows show where each would go now.`
          : lost ? `Likelihood displacement: the chosen answer ${name(chosen)} has become less likely; ${name(gained)} has gained most.`
            : `The chosen answer ${name(chosen)} has ${change[chosen] > 0.01 ? "gained" : "stayed where it was"}.`));
    }
    begin();
  };
})(globalThis.clPlay);
