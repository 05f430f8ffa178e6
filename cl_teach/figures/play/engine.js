// What all playgrounds share: waking a figure, its look, controls, dragging, keys, animation, announcements.
(function (root) {
  "use strict";
  const play = (root.clPlay = root.clPlay || { math: {}, draw: {} });
  if (play.wake) return;

  // ---- mathematics that several playgrounds use ----------------------------------------------------------------------

  play.math.logSumExp = (x) => {
    const top = Math.max(...x);
    return top === -Infinity ? top : top + Math.log(x.reduce((sum, v) => sum + Math.exp(v - top), 0));
  };
  play.math.softmax = (x) => {
    const total = play.math.logSumExp(x);
    return x.map((v) => Math.exp(v - total));
  };
  play.math.sum = (x) => x.reduce((a, b) => a + b, 0);
  play.math.dot = (x, y) => x.reduce((sum, v, i) => sum + v * y[i], 0);
  // Mulberry32: the same numbers in every browser.
  play.math.random = (seed) => () => {
    seed = (seed + 0x6d2b79f5) | 0;
    let t = Math.imul(seed ^ (seed >>> 15), 1 | seed);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };

  // ---- the look ------------------------------------------------------------------------------------------------------

  const PALETTE = ["blue", "red", "green", "orange", "purple", "sky", "ink", "gray"].map((name) => `var(--${name})`);

  // Between the page and blue, with black or white on it, whichever is easier to read.
  function tint(figure, share) {
    const [page, blue] = figure.classList.contains("cl-dark") ? [[20, 24, 30], [95, 176, 230]] : [[255, 255, 255], [0, 114, 178]];
    const mixed = page.map((v, i) => Math.round(v + share * (blue[i] - v)));
    const [r, g, b] = mixed.map((v) => (v / 255 <= 0.04045 ? v / 255 / 12.92 : ((v / 255 + 0.055) / 1.055) ** 2.4));
    return `background:rgb(${mixed});color:${0.2126 * r + 0.7152 * g + 0.0722 * b > 0.179 ? "#000" : "#fff"};`;
  }

  function theme(figure) {
    const color = getComputedStyle(figure).color; // light writing means a dark page, whoever made the page
    const [r, g, b] = color.match(/[\d.]+/g).map((v) => (color.startsWith("color(") ? 255 * v : +v));
    const dark = 0.3 * r + 0.59 * g + 0.11 * b > 140, was = figure.classList.contains("cl-dark");
    figure.classList.toggle("cl-dark", dark);
    if (dark !== was) figure.dispatchEvent(new Event("cl-theme"));
  }

  // ---- making elements -----------------------------------------------------------------------------------------------

  const put = (node, attributes) => {
    for (const name in attributes || {}) node.setAttribute(name, attributes[name]);
    return node;
  };
  const html = (name, attributes, ...inside) => {
    const node = put(document.createElement(name), attributes);
    node.append(...inside);
    return node;
  };
  const shape = (parent, name, attributes, words) => {
    const node = put(document.createElementNS("http://www.w3.org/2000/svg", name), attributes);
    if (words !== undefined) node.textContent = words;
    return parent.appendChild(node);
  };
  const number = (x, digits = 2) => (Math.abs(x) < 0.5 * 10 ** -digits ? 0 : x).toFixed(digits).replace("-", "\u2212");
  const clamp = (x, low, high) => Math.min(high, Math.max(low, x));
  const path = (points) => points.map(([x, y], i) => `${i ? "L" : "M"}${x.toFixed(1)} ${y.toFixed(1)}`).join("");
  // Picture i of a strip as a background.
  const thumb = (strip, i) =>
    `background-image:url(data:image/webp;base64,${strip.data});background-size:${100 * strip.n}% 100%;` +
    `background-position:${(100 * i) / Math.max(strip.n - 1, 1)}% 0`;

  function make(figure) {
    const live = html("div", { class: "cl-live" });
    figure.insertBefore(live, figure.querySelector("img").nextSibling);
    const status = html("p", { class: "cl-say", role: "status", "aria-live": "polite" });
    let timer = 0;
    const add = (node, parent) => (parent || live).insertBefore(node, (parent || live) === live ? status : null);
    live.append(status);

    const ui = {
      put, html, shape, number, clamp, path, thumb, PALETTE, figure, live,
      tint: (share) => tint(figure, share),
      calm: matchMedia("(prefers-reduced-motion: reduce)").matches,

      panel(label, box) {
        const svg = shape(add(html("div", { class: "cl-panel" })), "svg", { viewBox: box, role: "group", "aria-label": label });
        svg.at = (event) => {
          const p = new DOMPoint(event.clientX, event.clientY).matrixTransform(svg.getScreenCTM().inverse());
          return [p.x, p.y];
        };
        return svg;
      },
      block: (name, parent) => add(html("div", { class: name }), parent),
      side: () => ui.block("cl-side"),
      row: (parent) => ui.block("cl-row", parent),
      hint: (words, parent) => add(html("p", { class: "cl-hint" }, words), parent),

      button(label, act, parent) {
        const node = html("button", { type: "button" }, label);
        node.addEventListener("click", act);
        return add(node, parent);
      },
      slider(o, parent) {
        const [to, from] = o.log ? [Math.log10, (v) => 10 ** v] : [(v) => v, (v) => v];
        const words = o.format || ((v) => number(v, o.digits === undefined ? 2 : o.digits));
        const input = html("input", {
          type: "range", min: to(o.min), max: to(o.max), step: o.step || (to(o.max) - to(o.min)) / 200, autocomplete: "off",
        });
        const output = html("output", { "aria-live": "off" });
        const show = (v) => {
          output.value = words(v);
          input.setAttribute("aria-valuetext", words(v));
        };
        input.addEventListener("input", () => (show(from(+input.value)), o.set(from(+input.value))));
        add(html("label", { class: "cl-slider" }, html("span", {}, o.label), input, output), parent);
        const slider = (v) => ((input.value = to(v)), show(v));
        slider(o.value);
        return slider;
      },
      // One of several, as radio buttons; names of the group from a counter of the page, never random.
      choice(label, options, value, set, parent) {
        play.groups = (play.groups || 0) + 1;
        const box = html("div", { class: "cl-row", role: "radiogroup", "aria-label": label }, html("span", {}, label));
        const inputs = options.map((option) => {
          const input = html("input", { type: "radio", name: `cl-play-${play.groups}`, value: option, autocomplete: "off" });
          input.addEventListener("change", () => set(option));
          box.append(html("label", { class: "cl-pick" }, input, option));
          return input;
        });
        add(box, parent);
        const choose = (v) => inputs.forEach((input) => (input.checked = input.value === v));
        choose(value);
        return choose;
      },
      values(names, parent) {
        const cells = {};
        const list = html("dl", { class: "cl-values" });
        names.forEach((name) => list.append(html("div", {}, html("dt", {}, name), (cells[name] = html("dd", {})))));
        add(list, parent);
        return (values) => Object.keys(values).forEach((name) => (cells[name].textContent = values[name]));
      },
      // The sentence that states what is to be seen; spoken when the hand rests.
      say(words) {
        if (!status.textContent) status.textContent = words;
        clearTimeout(timer);
        timer = setTimeout(() => status.textContent !== words && (status.textContent = words), 350);
      },

      // Something in an SVG to take hold of: by mouse, finger and arrow keys.
      handle(node, o) {
        const svg = node.ownerSVGElement;
        put(node, { tabindex: 0, role: "slider", "aria-label": o.label, "aria-valuemin": o.min, "aria-valuemax": o.max });
        node.classList.add("cl-handle");
        node.addEventListener("pointerdown", (event) => {
          event.preventDefault();
          node.focus({ preventScroll: true });
          node.setPointerCapture(event.pointerId);
        });
        node.addEventListener("pointermove", (event) => {
          if (node.hasPointerCapture(event.pointerId)) o.drag(...svg.at(event));
        });
        node.addEventListener("keydown", (event) => {
          const by = { ArrowRight: [1, 0], ArrowLeft: [-1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1], PageUp: [5, 0], PageDown: [-5, 0] }[event.key];
          if (!by || event.ctrlKey || event.metaKey || event.altKey) return;
          event.preventDefault();
          o.move(...(event.shiftKey ? by.map((v) => 5 * v) : by));
        });
        return (now, words) => put(node, { "aria-valuenow": Number(now.toFixed(3)), "aria-valuetext": words });
      },

      // Buttons in rows and columns: one stop for Tab, arrows inside.
      grid(o) {
        const box = html("div", { class: "cl-grid", role: "group", "aria-label": o.label, style: `grid-template-columns:${o.template}` });
        const cells = [];
        if (o.head) box.append(...o.head);
        for (let i = 0; i < o.rows; i++) {
          if (o.before) box.append(o.before(i));
          cells.push([]);
          for (let j = 0; j < o.columns; j++) {
            const cell = html("button", { type: "button", tabindex: i + j ? -1 : 0, class: o.cell || "" });
            cell.addEventListener("click", () => o.press(i, j));
            cell.addEventListener("focus", () => {
              cells.flat().forEach((other) => (other.tabIndex = other === cell ? 0 : -1));
              if (o.focus) o.focus(i, j);
            });
            cell.addEventListener("keydown", (event) => {
              const by = { ArrowRight: [0, 1], ArrowLeft: [0, -1], ArrowUp: [-1, 0], ArrowDown: [1, 0] }[event.key];
              if (by) cells[clamp(i + by[0], 0, o.rows - 1)][clamp(j + by[1], 0, o.columns - 1)].focus();
              if (by || (o.key && o.key(i, j, event.key))) event.preventDefault();
            });
            cells[i].push(cell);
            box.append(cell);
          }
          if (o.after) box.append(o.after(i));
        }
        if (o.foot) box.append(...o.foot);
        add(box, o.parent);
        return cells;
      },

      // A button that runs: advance() says whether there is more to come. Who wants no motion gets the end at once.
      loop(advance, draw, parent) {
        let id = 0, last = 0;
        const stop = () => {
          cancelAnimationFrame(id);
          id = 0;
          button.textContent = "Run";
        };
        const tick = (now) => {
          if (!figure.isConnected) return stop();
          if (now - last > 14) { // the same speed on a screen with 120 pictures a second
            last = now;
            if (!advance()) return stop(), draw();
            draw();
          }
          id = requestAnimationFrame(tick);
        };
        const start = () => {
          if (id) return;
          if (ui.calm) {
            for (let k = 0; k < 5000 && advance(); k++);
            return draw();
          }
          button.textContent = "Pause";
          id = requestAnimationFrame(tick);
        };
        const button = ui.button("Run", () => (id ? stop() : start()), parent);
        button.classList.add("cl-run");
        return { start, stop };
      },
    };
    return ui;
  }

  // ---- waking --------------------------------------------------------------------------------------------------------

  play.wake = () => {
    if (!document.querySelector("style.cl-play-style")) {
      document.head.append(html("style", { class: "cl-play-style" }, play.look));
      const again = () => document.querySelectorAll(".cl-play").forEach(theme);
      const watch = new MutationObserver(() => (again(), setTimeout(again, 400)));
      [document.documentElement, document.body].forEach((node) => watch.observe(node, { attributes: true }));
      matchMedia("(prefers-color-scheme: dark)").addEventListener("change", again);
    }
    document.querySelectorAll("figure.cl-play:not(.cl-alive)").forEach((figure) => {
      const draw = play.draw[figure.dataset.play];
      if (!draw) return; // its own script comes later
      figure.classList.add("cl-alive");
      theme(figure);
      try {
        draw(make(figure), JSON.parse(figure.dataset.state));
      } catch (error) { // the still picture stays
        figure.classList.remove("cl-alive");
        figure.querySelectorAll(".cl-live").forEach((node) => node.remove());
        console.error(error);
      }
    });
  };
})(globalThis);
