// The book's own script: names the boxes, keeps search quiet on file://, lets wide things scroll, labels the theme's controls.
(function () {
  "use strict";

  var BOXES = {
    "definition.": "definition",
    "predict.": "predict",
    "note.": "note",
    "paper versus code.": "code",
    "how sure are we?": "sure"
  };

  // A page opened from disk may not fetch other pages, so search there shows titles without excerpts.
  if (location.protocol === "file:" && typeof DOCUMENTATION_OPTIONS !== "undefined") {
    DOCUMENTATION_OPTIONS.SHOW_SEARCH_SUMMARY = false;
  }

  function nameBoxes() {
    document.querySelectorAll("article blockquote, .bd-article blockquote").forEach(function (quote) {
      var strong = quote.querySelector(":scope strong");
      var kind = strong && BOXES[strong.textContent.trim().toLowerCase()];
      if (kind) {
        quote.classList.add("cl-box", "cl-box-" + kind);
      }
    });
  }

  // Markdown tables always have a head; an empty one is only noise.
  function dropEmptyHeads() {
    document.querySelectorAll(".bd-article thead").forEach(function (head) {
      head.classList.toggle("cl-empty", !head.textContent.trim());
    });
  }

  // A table scrolls inside its own frame on a narrow screen, by keyboard too.
  function frameTables() {
    document.querySelectorAll(".bd-article table").forEach(function (table) {
      if (table.closest(".cl-scroll, .cl-frames, .pst-scrollable-table-container")) {
        return;
      }
      var frame = document.createElement("div");
      frame.className = "cl-scroll";
      table.parentNode.insertBefore(frame, table);
      frame.appendChild(table);
    });
  }

  // What scrolls must be reachable by keyboard.
  function makeScrollersReachable() {
    document
      .querySelectorAll(".cl-scroll, .pst-scrollable-table-container, div.math, .bd-article pre, mjx-container[display=true]")
      .forEach(function (element) {
        if (element.scrollWidth > element.clientWidth + 1 && !element.hasAttribute("tabindex")) {
          element.setAttribute("tabindex", "0");
        }
      });
  }

  function ready() {
    nameBoxes();
    dropEmptyHeads();
    frameTables();
    makeScrollersReachable();
    if (window.MathJax && window.MathJax.startup && window.MathJax.startup.promise) {
      window.MathJax.startup.promise.then(makeScrollersReachable);
    }
  }

  if (document.readyState === "loading") {
    document.addEventListener("DOMContentLoaded", ready);
  } else {
    ready();
  }
})();
