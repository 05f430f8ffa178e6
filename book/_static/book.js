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

  function element(name, attributes, text) {
    var made = document.createElement(name);
    Object.keys(attributes || {}).forEach(function (key) {
      made.setAttribute(key, attributes[key]);
    });
    if (text) {
      made.textContent = text;
    }
    return made;
  }

  function columns(table) {
    return Array.from(table.querySelectorAll("thead th")).map(function (th) {
      return th.textContent.trim().toLowerCase();
    });
  }

  function partOf(table) {
    var section = table.closest("section");
    while (section && !/^part \d/i.test((section.querySelector(":scope > h2") || {}).textContent || "")) {
      section = section.parentElement && section.parentElement.closest("section");
    }
    return section ? section.querySelector(":scope > h2").firstChild.textContent.trim() : "";
  }

  // What a row says in each of the filters; a cell may say several things.
  function facts(row, names, part) {
    var cell = function (name) {
      var at = names.indexOf(name);
      return at < 0 ? "" : row.cells[at].textContent.trim();
    };
    var found = cell("found") || cell("verdict");
    return {
      part: [part],
      year: cell("year") ? [cell("year")] : [],
      "you have": cell("you have") ? cell("you have").split(/,\s*/) : [],
      data: cell("data") ? cell("data").split(/,\s*/) : [],
      trouble: cell("trouble") ? cell("trouble").split(/,\s*/) : [],
      found: ["holds", "opposite", "no difference", "undecided", "not yet measured"].filter(function (word) {
        return found.indexOf(word) >= 0;
      })
    };
  }

  // The survey map, "Which one?" and the evidence pages: choose rows by what they say. Without a script all rows are there.
  function addFilters() {
    if (!/^(survey_map|which_one|evidence(_part_\d+)?)\.html$/.test(location.pathname.split("/").pop())) {
      return;
    }
    var rows = [];
    document.querySelectorAll(".bd-article table").forEach(function (table) {
      var names = columns(table);
      if (names.indexOf("found") < 0 && names.indexOf("verdict") < 0) {
        return;
      }
      Array.from(table.tBodies[0].rows).forEach(function (row) {
        rows.push({ row: row, table: table, facts: facts(row, names, partOf(table)) });
      });
    });
    if (!rows.length) {
      return;
    }
    var bar = element("form", { class: "cl-filters", role: "search", "aria-label": "Choose rows" });
    var count = element("output", { "aria-live": "polite" });
    var selects = {};
    ["part", "year", "you have", "data", "trouble", "found"].forEach(function (name) {
      var values = [];
      rows.forEach(function (entry) {
        entry.facts[name].forEach(function (value) {
          if (value && values.indexOf(value) < 0) {
            values.push(value);
          }
        });
      });
      if (values.length < 2) {
        return;
      }
      if (name !== "part" && name !== "found") {
        values.sort();
      }
      var label = element("label", {}, name + " ");
      var select = element("select", { name: name });
      select.appendChild(element("option", { value: "" }, "all"));
      values.forEach(function (value) {
        select.appendChild(element("option", { value: value }, value));
      });
      select.addEventListener("change", choose);
      selects[name] = select;
      label.appendChild(select);
      bar.appendChild(label);
    });

    function choose() {
      var shown = 0;
      rows.forEach(function (entry) {
        var fits = Object.keys(selects).every(function (name) {
          return !selects[name].value || entry.facts[name].indexOf(selects[name].value) >= 0;
        });
        entry.row.hidden = !fits;
        shown += fits ? 1 : 0;
      });
      count.textContent = shown + " of " + rows.length + " rows";
      // A section of which nothing is left steps back; one without any table stays as it is.
      document.querySelectorAll(".bd-article section section").forEach(function (section) {
        var own = rows.filter(function (entry) {
          return section.contains(entry.row);
        });
        section.hidden = own.length > 0 && own.every(function (entry) {
          return entry.row.hidden;
        });
      });
    }

    bar.addEventListener("submit", function (event) {
      event.preventDefault();
    });
    bar.appendChild(count);
    var first = document.querySelector(".bd-article section section");
    first.parentNode.insertBefore(bar, first);
    choose();
  }

  // Tables of evidence sort by a click on the head of a column, or with the keyboard: it holds a button.
  function makeSortable() {
    document.querySelectorAll(".bd-article table").forEach(function (table) {
      var names = columns(table);
      if (names.indexOf("verdict") < 0 || names.indexOf("difference") < 0 || table.tBodies[0].rows.length < 2) {
        return;
      }
      var number = names.indexOf("difference");
      Array.from(table.querySelectorAll("thead th")).forEach(function (th, at) {
        var button = element("button", { type: "button", class: "cl-sort" }, th.textContent.trim());
        th.textContent = "";
        th.appendChild(button);
        button.addEventListener("click", function () {
          var up = th.getAttribute("aria-sort") !== "ascending";
          table.querySelectorAll("thead th").forEach(function (other) {
            other.removeAttribute("aria-sort");
          });
          th.setAttribute("aria-sort", up ? "ascending" : "descending");
          var key = function (row) {
            var text = row.cells[at].textContent.trim();
            return at === number ? parseFloat(text.replace("\u2212", "-")) || 0 : text.toLowerCase();
          };
          Array.from(table.tBodies[0].rows)
            .sort(function (a, b) {
              var x = key(a);
              var y = key(b);
              return (x < y ? -1 : x > y ? 1 : 0) * (up ? 1 : -1);
            })
            .forEach(function (row) {
              table.tBodies[0].appendChild(row);
            });
        });
      });
    });
  }

  // The theme's arrow that opens a page's subpages in the sidebar has no text for those who cannot see it.
  function nameArrows() {
    document.querySelectorAll("li.has-children > details > summary").forEach(function (arrow) {
      var page = arrow.closest("li").querySelector("a");
      if (!arrow.textContent.trim() && page) {
        arrow.setAttribute("aria-label", "Pages below " + page.textContent.trim());
      }
    });
  }

  function ready() {
    nameBoxes();
    nameArrows();
    addFilters();
    makeSortable();
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
