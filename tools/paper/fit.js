// Narrow what is wider than the paper: first words may break, then the whole becomes smaller.
async () => {
  await Promise.all([...document.images].map(image => image.decode().catch(() => 0)));
  await document.fonts.ready;
  const page = document.body.clientWidth, small = [];
  // Letters become smaller in whole steps, so what is narrowed once may still be too wide.
  const shrink = (element, width, room) => {
    let zoom = 1;
    for (let k = 0; k < 4 && width() > room + 1; k++) {
      zoom = Math.max(0.5, Math.floor(100 * zoom * room / width()) / 100);
      element.style.zoom = zoom;
    }
    if (zoom < 1) small.push(zoom);
  };
  const inside = element => {
    let parent = element.parentElement;  // an inline one is as wide as what it holds
    while (getComputedStyle(parent).display.startsWith('inline')) parent = parent.parentElement;
    const box = parent.getBoundingClientRect(), style = getComputedStyle(parent);
    return Math.min(box.right - parseFloat(style.paddingRight), page) - box.left - parseFloat(style.paddingLeft);
  };
  for (const pre of document.querySelectorAll('pre'))
    if (pre.getBoundingClientRect().height < 300) pre.parentElement.classList.add('cl-short');
  for (const table of document.querySelectorAll('table')) {
    const room = inside(table), width = () => table.getBoundingClientRect().width;
    if (width() > room / 0.8) table.classList.add('cl-anywhere');
    shrink(table, width, room);
  }
  for (const formula of document.querySelectorAll('mjx-container')) {
    const svg = formula.querySelector('svg');
    shrink(formula, () => svg.getBoundingClientRect().width, inside(formula));
  }
  const wide = [...document.querySelectorAll('.bd-article *')]
    .filter(e => !e.ownerSVGElement && getComputedStyle(e).position !== 'absolute')
    .map(e => [e, Math.round(e.getBoundingClientRect().right)])
    .filter(([e, right]) => right > page + 2)
    .map(([e, right]) => `${e.tagName.toLowerCase()} ${right} px, ${e.closest('.cl-page').id}`);
  return {small: small.length, wide: wide};
}
