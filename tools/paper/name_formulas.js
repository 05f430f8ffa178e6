// A formula is a picture in the PDF; what it says is what its author wrote.
async () => {
  if (!window.MathJax || !MathJax.startup) return 0;
  await MathJax.startup.promise;
  let n = 0;
  for (const item of MathJax.startup.document.math) {
    item.typesetRoot.setAttribute('role', 'img');
    item.typesetRoot.setAttribute('aria-label', item.math.trim());
    n += 1;
  }
  return n;
}
