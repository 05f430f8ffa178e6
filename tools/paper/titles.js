// What every heading says, in their order; a formula in it as its author wrote it.
() => [...document.querySelectorAll('h1, h2, h3, h4, h5, h6')].map(heading => {
  const copy = heading.cloneNode(true);
  copy.querySelectorAll('mjx-container').forEach(formula => formula.replaceWith(formula.getAttribute('aria-label')));
  return copy.textContent.replace(/\s+/g, ' ').trim();
})
