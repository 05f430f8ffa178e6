// Typeset, make every slide fit, then start. While this happens all slides are laid out: what is hidden has no size.
(function () {
  "use strict";
  const ROOM = { right: 1232, bottom: 696 };

  window.MathJax = {
    tex: { macros: { sg: ["\\operatorname{sg}\\left[#1\\right]", 1] } },
    svg: { fontCache: "global" },
    options: { enableMenu: false, enableAssistiveMml: true, skipHtmlTags: ["script", "style", "textarea", "pre", "code"] },
    startup: { typeset: false, pageReady: () => MathJax.startup.defaultPageReady().then(begin) },
  };

  // A slide that is too high or too wide becomes smaller; one that would be too small to read scrolls instead.
  function fit(section) {
    const body = section.querySelector(":scope > .cl-body");
    if (!body) return;
    const room = () => ROOM.bottom - (body.getBoundingClientRect().top - section.getBoundingClientRect().top);
    for (const element of body.querySelectorAll("table, pre, mjx-container")) {
      const svg = element.querySelector(":scope > svg") || element;
      const block = element.closest("p, li, td, div, mjx-container[display=true], table, pre");
      const room = ROOM.right - (block.getBoundingClientRect().left - section.getBoundingClientRect().left);
      const width = () => Math.max(element === svg ? element.scrollWidth : 0, svg.getBoundingClientRect().width);
      // Letters become smaller in whole steps, so what is narrowed once may still be too wide.
      let zoom = 1;
      for (let k = 0; k < 4 && width() > room + 2 && zoom > 0.5; k++) {
        zoom = Math.max(0.5, Math.floor((100 * zoom * room) / width()) / 100);
        element.style.zoom = zoom;
      }
    }
    let zoom = 1;
    const height = () => body.getBoundingClientRect().height;
    for (let k = 0; k < 5 && height() > room() + 1 && zoom > 0.6; k++) {
      zoom = Math.max(0.6, Math.floor(100 * zoom * Math.max(0.8, Math.sqrt(room() / height()))) / 100);
      body.style.zoom = zoom;
    }
    section.dataset.fit = zoom.toFixed(2);
    const edge = section.getBoundingClientRect().left + ROOM.right + 24;
    const seen = [...body.querySelectorAll("*")].filter((e) => !e.ownerSVGElement && !e.closest("mjx-assistive-mml"));
    section.dataset.wide = seen.some((element) => element.getBoundingClientRect().right > edge) ? "yes" : "no";
    if (height() > room() + 1) {
      section.dataset.fit = "scroll";
      body.classList.add("cl-scrolls");
      body.style.maxHeight = `${room() / zoom}px`;
      body.tabIndex = 0;
    }
  }

  // Arrow keys move what has the focus inside a figure; everywhere else they turn slides.
  const inFigure = () => document.activeElement && document.activeElement.closest(".cl-frames, .cl-play, .cl-highlight");

  async function begin() {
    await MathJax.startup.document.updateDocument;
    await MathJax.typesetPromise();
    await Promise.all([...document.images].map((image) => image.decode().catch(() => 0)));
    document.querySelectorAll(".slides section").forEach(fit);
    document.body.classList.remove("cl-preparing");
    await Reveal.initialize({
      width: 1280, height: 720, margin: 0, center: false, hash: true, slideNumber: "c/t", transition: "none",
      backgroundTransition: "none", controlsTutorial: false, plugins: window.RevealNotes ? [RevealNotes] : [],
      keyboardCondition: () => !inFigure(),
    });
    // Escape leaves a figure; so does letting go of its slider, for whoever turns slides with a clicker.
    document.addEventListener("keydown", (event) => {
      if (event.key === "Escape" && inFigure()) {
        document.activeElement.blur();
        event.stopImmediatePropagation();
      }
    }, true);
    document.addEventListener("pointerup", (event) => {
      if (event.target.matches && event.target.matches("input[type=range]")) event.target.blur();
    });
    document.body.dataset.ready = "yes";
  }
})();
