// A table of similarities whose cells become positives, candidates or nothing: which loss is it?
(function (play) {
  "use strict";
  const { logSumExp, softmax, sum } = play.math;
  const NOTHING = 0, CANDIDATE = 1, POSITIVE = 2;

  const math = (play.math.masks = {
    // Row by row: loss (null where nobody asks), shares of the softmax, number of candidates. A positive is a candidate
    // too, unless the loss is decoupled.
    rows(similarities, cells, temperature, variant, decoupled) {
      return similarities.map((row, i) => {
        const inside = (j) => cells[i][j] === CANDIDATE || (cells[i][j] === POSITIVE && !decoupled);
        const logits = row.map((s, j) => (inside(j) ? s / temperature : -Infinity));
        const positives = row.map((_, j) => j).filter((j) => cells[i][j] === POSITIVE);
        const total = logSumExp(logits), count = row.filter((_, j) => inside(j)).length;
        const shares = count ? softmax(logits) : row.map(() => 0);
        if (!positives.length || !count) return { loss: null, shares, count, positives: positives.length };
        const own = positives.map((j) => row[j] / temperature);
        const loss = variant === "out" ? total - sum(own) / own.length : total - logSumExp(own) + Math.log(own.length);
        return { loss, shares, count, positives: positives.length };
      });
    },
    // The cells of a known loss for n pictures, first views before second views.
    preset(name, labels) {
      const n = labels.length, half = n / 2;
      return labels.map((label, i) => labels.map((other, j) => {
        const across = i < half !== j < half;
        if (name === "InfoNCE" && (i >= half || j < half)) return NOTHING;
        if (name === "CLIP" && !across) return NOTHING;
        if (i === j) return NOTHING;
        return (name === "SupCon" ? label === other : Math.abs(i - j) === half) ? POSITIVE : CANDIDATE;
      }));
    },
    name(cells, labels, decoupled) {
      const equal = (a, b) => a.every((row, i) => row.every((v, j) => v === b[i][j]));
      const known = ["InfoNCE", "NT-Xent", "SupCon", "CLIP"].find((name) => equal(cells, math.preset(name, labels)));
      if (decoupled) return known === "NT-Xent" ? "DCL" : known ? `${known}, decoupled` : "no loss with a name, decoupled";
      if (known) return known;
      const off = cells.map((row, i) => row.map((v, j) => (i === j && v === CANDIDATE ? NOTHING : v)));
      const all = cells.every((row, i) => row[i] === CANDIDATE);
      const twin = all && ["NT-Xent", "SupCon"].find((name) => equal(off, math.preset(name, labels)));
      if (twin) return `${twin} with a mistake: every anchor may choose itself`;
      return cells.flat().includes(POSITIVE) ? "no loss with a name" : "no loss: nobody asks";
    },
  });

  play.draw.masks = (ui, start) => {
    const { html, number } = ui, n = start.similarities.length, labels = start.labels;
    let cells = start.cells.map((row) => row.slice()), { temperature } = start, variant = "out", decoupled = false, chosen = 0;
    const words = ["nothing", "candidate", "positive"];
    const face = (i) => (start.pictures
      ? html("span", { class: "cl-thumb", style: ui.thumb(start.pictures, i), title: start.names[i] })
      : html("span", { title: start.names[i] }, start.names[i]));

    const left = ui.block("cl-panel");
    const losses = labels.map(() => html("span", { style: "font-weight:600;font-variant-numeric:tabular-nums" }));
    const buttons = ui.grid({
      rows: n, columns: n, parent: left, label: "Rows are anchors, columns are what they are compared with",
      template: `1.1fr repeat(${n},1fr) 1.3fr`,
      head: [html("span"), ...labels.map((_, j) => face(j)), html("span", {}, "loss")],
      before: face, after: (i) => losses[i],
      press: (i, j) => set(i, j, (cells[i][j] + 1) % 3),
      key: (i, j, key) => ({ n: NOTHING, c: CANDIDATE, p: POSITIVE }[key] !== undefined && (set(i, j, { n: 0, c: 1, p: 2 }[key]), true)),
      focus: (i) => ((chosen = i), draw()),
    });
    const bars = html("div", { style: `display:grid;grid-template-columns:1.1fr repeat(${n},1fr) 1.3fr;gap:2px;align-items:end;max-width:520px;margin:.4em auto .6em` });
    const heights = labels.map(() => html("div", { style: "border-radius:.2em .2em 0 0" }));
    const numbers = labels.map(() => html("div", { style: "font-size:.7rem;text-align:center;font-variant-numeric:tabular-nums" }));
    const bar = (j) => html("div", { style: "height:64px;display:flex;flex-direction:column;justify-content:flex-end" }, numbers[j], heights[j]);
    bars.append(html("span", { style: "font-size:.7rem" }, "shares"), ...labels.map((_, j) => bar(j)), html("span"));
    left.append(bars);

    const side = ui.side();
    const title = ui.block("cl-title", side);
    const presets = ui.row(side);
    ["InfoNCE", "NT-Xent", "SupCon", "CLIP"].forEach((name) =>
      ui.button(name, () => ((cells = math.preset(name, labels)), switchTo(false), draw()), presets));
    ui.button("Clear", () => ((cells = cells.map((row) => row.map(() => NOTHING))), draw()), presets);
    ui.button("Reset", () => {
      cells = start.cells.map((row) => row.slice());
      temperature = start.temperature;
      variant = "out";
      chosen = 0;
      setTemperature(temperature), setVariant(variant), switchTo(false), draw();
    }, presets);
    const setTemperature = ui.slider({
      label: "temperature", min: 0.05, max: 2, log: true, value: temperature, set: (v) => ((temperature = v), draw()),
    }, side);
    const setVariant = ui.choice("mean over positives", ["out", "in"], variant, (v) => ((variant = v), draw()), side);
    const toggle = ui.button("positives leave the sum", () => (switchTo(!decoupled), draw()), side);
    function switchTo(on) {
      decoupled = on;
      toggle.setAttribute("aria-pressed", on);
    }
    switchTo(false);
    const show = ui.values(["mean loss", "a guess", "anchors"], side);
    ui.hint("Click a cell: nothing, candidate (orange), positive (blue, round). By keyboard: arrows, then p, c or n.", side);

    function set(i, j, value) {
      cells[i][j] = value;
      chosen = i;
      draw();
    }
    function draw() {
      const rows = math.rows(start.similarities, cells, temperature, variant, decoupled);
      buttons.forEach((line, i) => line.forEach((button, j) => {
        const cell = cells[i][j], back = ["transparent", "var(--orange)", "var(--blue)"][cell];
        button.style.cssText = `background:${back};color:${["var(--soft)", "#000", "var(--on-blue)"][cell]};`
          + (i === chosen ? "border-color:var(--ink)" : "");
        button.style.borderRadius = cell === 2 ? "50%" : "";
        button.textContent = number(start.similarities[i][j], 1).replace("0.", ".");
        button.setAttribute("aria-label", `row ${start.names[i]}, column ${start.names[j]}, cosine ${number(start.similarities[i][j])}: ${words[cell]}`);
      }));
      rows.forEach((row, i) => (losses[i].textContent = row.loss === null ? "–" : number(row.loss)));
      rows[chosen].shares.forEach((share, j) => {
        heights[j].style.height = `${50 * share}px`;
        heights[j].style.background = cells[chosen][j] === POSITIVE ? "var(--blue)" : "var(--orange)";
        numbers[j].textContent = share ? `${Math.round(100 * share)}` : "";
      });
      const asking = rows.filter((row) => row.loss !== null), name = math.name(cells, labels, decoupled);
      const mean = asking.length ? number(sum(asking.map((row) => row.loss)) / asking.length, 3) : "–";
      const guess = asking.length ? number(sum(asking.map((row) => Math.log(row.count))) / asking.length, 3) : "–";
      title.textContent = name;
      show({ "mean loss": mean, "a guess": guess, anchors: asking.length });
      const row = rows[chosen];
      ui.say(`${name}: ${asking.length} anchors, mean loss ${mean}, a guess ${guess}. Row ${start.names[chosen]}: `
        + (row.loss === null ? "no anchor." : `loss ${number(row.loss)}, ${row.positives} positive${row.positives > 1 ? "s" : ""}, ${row.count} candidates, `
          + `the softmax gives the positives ${Math.round(100 * sum(row.shares.filter((_, j) => cells[chosen][j] === POSITIVE)))} %.`));
    }
    draw();
  };
})(globalThis.clPlay);
