// Sinkhorn-Knopp, half a step at a time, on a table of scores that may be changed.
(function (play) {
  "use strict";
  const { logSumExp, sum } = play.math;
  const column = (table, k) => table.map((row) => row[k]);

  const math = (play.math.balance = {
    // Tables hold logarithms. The start is exp(S / epsilon), scaled to a total of one for each sample.
    begin(scores, epsilon) {
      const log = scores.map((row) => row.map((s) => s / epsilon));
      const total = logSumExp(log.flat()) - Math.log(scores.length);
      return log.map((row) => row.map((v) => v - total));
    },
    columns(log) {
      const fair = Math.log(log.length / log[0].length), totals = log[0].map((_, k) => logSumExp(column(log, k)));
      return log.map((row) => row.map((v, k) => v - totals[k] + fair));
    },
    rows: (log) => log.map((row) => {
      const total = logSumExp(row);
      return row.map((v) => v - total);
    }),
    sinkhorn(scores, epsilon, iterations) {
      let log = math.begin(scores, epsilon);
      for (let k = 0; k < iterations; k++) log = math.rows(math.columns(log));
      return log.map((row) => row.map(Math.exp));
    },
    // What each prototype costs after rows were scaled: codes = softmax((S - price) / epsilon). The cheapest costs 0.
    prices(scores, epsilon, log) {
      const paid = log[0].map((v, k) => scores[0][k] - epsilon * v), least = Math.min(...paid);
      return paid.map((price) => price - least);
    },
  });

  play.draw.balance = (ui, start) => {
    const { html, number, clamp } = ui, B = start.scores.length, K = start.scores[0].length, fair = B / K;
    let scores, epsilon, log, half, chosen = [0, 0];

    const left = ui.block("cl-panel");
    const text = () => html("span", { style: "font-weight:600;font-variant-numeric:tabular-nums" });
    const given = Array.from({ length: B }, text), got = Array.from({ length: K }, text), costs = Array.from({ length: K }, text);
    const cells = ui.grid({
      rows: B, columns: K, parent: left, label: "Codes: rows are samples, columns are prototypes", cell: "cl-flat",
      template: `2fr repeat(${K},2fr) 1.4fr`,
      head: [html("span", {}, "sample \\ prototype"), ...got.map((_, k) => html("span", {}, k + 1)), html("span", {}, "sum")],
      before: (i) => html("span", {}, i + 1), after: (i) => given[i],
      press: (i, k) => choose(i, k), focus: (i, k) => choose(i, k),
      key: (i, k, key) => ("+-=".includes(key) && (edit(scores[i][k] + (key === "-" ? -0.05 : 0.05)), true)),
      foot: [html("span", {}, `total, fair ${number(fair, 1)}`), ...got, html("span"), html("span", {}, "price"), ...costs, html("span")],
    });

    const side = ui.side();
    const title = ui.block("cl-title", side);
    title.style.minHeight = 0;
    const buttons = ui.row(side);
    ui.button("Half a step", () => (step(), draw()), buttons).classList.add("cl-run");
    ui.button("Ten steps", () => {
      for (let k = 0; k < 20 || half % 2; k++) step();
      draw();
    }, buttons);
    ui.button("From the start", () => restart(), buttons);
    ui.button("Reset", () => begin(), buttons);
    const setEpsilon = ui.slider({ label: "epsilon", min: 0.02, max: 1, log: true, value: start.epsilon, set: (v) => ((epsilon = v), restart()) }, side);
    const setScore = ui.slider({ label: "score of the chosen cell", min: -1, max: 1, step: 0.05, value: 0, set: (v) => edit(v) }, side);
    const show = ui.values(["chosen cell", "largest total", "off balance by"], side);
    ui.hint("Choose a cell and change its score by the slider, or by + and − on the keyboard. Numbers: the codes.", side);

    function begin() {
      scores = start.scores.map((row) => row.slice());
      epsilon = start.epsilon;
      setEpsilon(epsilon);
      chosen = [0, 0];
      restart();
    }
    function restart() {
      log = math.begin(scores, epsilon);
      half = 0;
      draw();
    }
    function step() {
      log = half % 2 ? math.rows(log) : math.columns(log);
      half++;
    }
    function choose(i, k) {
      chosen = [i, k];
      draw();
    }
    function edit(value) {
      scores[chosen[0]][chosen[1]] = clamp(Math.round(20 * value) / 20, -1, 1);
      const steps = half;
      log = math.begin(scores, epsilon);
      half = 0;
      while (half < steps) step();
      draw();
    }
    function draw() {
      const codes = log.map((row) => row.map(Math.exp)), [ci, ck] = chosen;
      cells.forEach((line, i) => line.forEach((cell, k) => {
        const share = clamp(codes[i][k], 0, 1);
        cell.style.cssText = ui.tint(share) + (i === ci && k === ck ? "outline:2px solid var(--ink)" : "");
        cell.textContent = number(codes[i][k]);
        cell.setAttribute("aria-label", `sample ${i + 1}, prototype ${k + 1}: score ${number(scores[i][k])}, code ${number(codes[i][k])}`);
      }));
      given.forEach((node, i) => (node.textContent = number(sum(codes[i]))));
      const totals = got.map((_, k) => sum(column(codes, k)));
      got.forEach((node, k) => (node.textContent = number(totals[k])));
      const priced = half > 0 && half % 2 === 0, prices = priced ? math.prices(scores, epsilon, log) : [];
      costs.forEach((node, k) => (node.textContent = priced ? number(prices[k]) : "–"));
      const off = Math.max(...totals.map((total) => Math.abs(total - fair))), largest = totals.indexOf(Math.max(...totals));
      const what = half === 0 ? "start: only exponentials" : half % 2 ? `step ${(half + 1) / 2}: columns scaled` : `step ${half / 2}: rows scaled`;
      title.textContent = what;
      setScore(scores[ci][ck]);
      show({
        "chosen cell": `${ci + 1}, ${ck + 1}: ${number(scores[ci][ck])}`, "largest total": `${number(totals[largest])}`, "off balance by": number(off, 3),
      });
      ui.say(`Epsilon ${number(epsilon)}, ${what}. Totals of the prototypes: ${totals.map((v) => number(v)).join(", ")}; fair is ${number(fair, 1)}, off by up to ${number(off, 3)}.`
        + (priced ? ` Most expensive: prototype ${prices.indexOf(Math.max(...prices)) + 1}, ${number(Math.max(...prices))}.` : ""));
    }
    ui.figure.addEventListener("cl-theme", draw);
    begin();
  };
})(globalThis.clPlay);
