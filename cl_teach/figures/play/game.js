// Which two belong together? The reader against players that have a table of similarities.
(function (play) {
  "use strict";

  const math = (play.math.game = {
    // The most similar pair; row i holds the similarities of picture i to those after it.
    choose(rows) {
      let best, most = -Infinity;
      rows.forEach((row, i) => row.forEach((value, k) => {
        if (value > most) [best, most] = [[i, i + 1 + k], value];
      }));
      return best;
    },
    same: (a, b) => Math.min(...a) === Math.min(...b) && Math.max(...a) === Math.max(...b),
    guess: (pictures) => 2 / (pictures * (pictures - 1)),
  });

  play.draw.game = (ui, start) => {
    const { html } = ui, { size, pairs, pictures } = start, rounds = pairs.length, letters = "ABCDEFGH";
    const players = Object.keys(start.players);
    const choices = Object.fromEntries(players.map((who) => [who, start.players[who].map(math.choose)]));
    let round, picked, won, answered;

    const table = ui.block("cl-game");
    table.style.cssText = "flex:1 1 320px;display:grid;grid-template-columns:repeat(3,1fr);gap:.6em;max-width:470px;margin:0 auto";
    const cards = Array.from({ length: size }, (_, i) => {
      const picture = html("span", { class: "cl-thumb" });
      const words = html("span", {}, letters[i]);
      const card = html("button", { type: "button", style: "padding:.3em;border-width:3px;text-align:center" }, picture, words);
      card.addEventListener("click", () => pick(i));
      table.append(card);
      return { card, picture, words };
    });

    const side = ui.side();
    const title = ui.block("cl-title", side);
    const board = ui.block("cl-board", side);
    const buttons = ui.row(side);
    const next = ui.button("Next round", () => deal(round + 1), buttons);
    next.classList.add("cl-run");
    ui.button("Start over", () => begin(), buttons);
    ui.hint(`Click two pictures. A guess is right in ${ui.number(100 * math.guess(size), 0)} % of the rounds.`, side);

    const tally = (name, row) => {
      const line = html("div", { style: "display:grid;grid-template-columns:5.5em 1fr;gap:.5em" });
      line.append(html("span", {}, name), html("span", { style: "letter-spacing:.15em" },
        row.map((ok) => (ok === null ? "·" : ok ? "●" : "○")).join("") + ` ${row.filter((ok) => ok).length}`));
      return line;
    };
    const scores = (name) => start.pairs.map((pair, r) =>
      r > round || (r === round && !answered) ? null : math.same(choices[name][r], pair));

    function begin() {
      won = [];
      deal(0);
    }
    function deal(number) {
      const focus = ui.live.contains(document.activeElement) && number > 0;
      round = number;
      picked = [];
      answered = false;
      draw();
      if (focus) cards[0].card.focus();
    }
    function pick(i) {
      if (answered) return;
      picked = picked.includes(i) ? picked.filter((j) => j !== i) : picked.concat(i);
      if (picked.length === 2) {
        answered = true;
        won[round] = math.same(picked, pairs[round]);
      }
      draw();
      if (answered && round < rounds - 1 && ui.live.contains(document.activeElement)) next.focus();
    }
    const two = (pair) => pair.map((i) => letters[i]).sort().join(" and ");

    function draw() {
      title.textContent = `Round ${round + 1} of ${rounds}: which two are pieces of one garment?`;
      cards.forEach(({ card, picture, words }, i) => {
        picture.style.cssText = ui.thumb(pictures, round * size + i);
        const right = answered && pairs[round].includes(i);
        card.setAttribute("aria-pressed", picked.includes(i));
        card.setAttribute("aria-label", `picture ${letters[i]}${right ? ", belongs" : ""}`);
        card.style.borderColor = right ? "var(--green)" : picked.includes(i) ? "var(--ink)" : "var(--line)";
        const by = players.filter((who) => answered && choices[who][round].includes(i));
        words.textContent = [letters[i] + (right ? " ✓" : ""), ...by].join(" · ");
        words.style.fontSize = by.length ? ".75em" : "";
      });
      next.disabled = !answered || round === rounds - 1;
      const mine = pairs.map((_, r) => (r in won ? won[r] : null));
      board.replaceChildren(tally("you", mine), ...players.map((who) => tally(who, scores(who))));
      const result = (who) => (math.same(choices[who][round], pairs[round]) ? "chose right" : `chose ${two(choices[who][round])}`);
      const end = round === rounds - 1 && answered
        ? ` The end: you ${won.filter((ok) => ok).length}, ${players.map((who) => who + " " + scores(who).filter((ok) => ok).length).join(", ")} of ${rounds}.`
        : "";
      if (answered)
        ui.say(`${won[round] ? "Right" : "Wrong"}: ${two(pairs[round])} belong together. `
          + players.map((who) => `${who[0].toUpperCase()}${who.slice(1)} ${result(who)}`).join("; ") + `.${end}`);
      else ui.say(`Round ${round + 1} of ${rounds}: six pictures, A to ${letters[size - 1]}. ` + (picked.length ? `Chosen: ${letters[picked[0]]}.` : "Choose two."));
    }
    begin();
  };
})(globalThis.clPlay);
