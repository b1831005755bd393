(() => {
const players = () => [...document.querySelectorAll('.riff-player audio')];
const parts = node => {
  const box = node.closest('.riff-player');
  return box && { box, audio: box.querySelector('audio'), image: box.querySelector('.riff-image'),
    line: box.querySelector('.riff-image > i'), now: box.querySelector('.riff-now'),
    button: box.querySelector('.riff-play') };
};
const clock = s => Math.floor(s / 60) + ':' + String(Math.floor(s % 60)).padStart(2, '0');
const draw = audio => {
  const p = parts(audio);
  if (!p) return;
  if (audio.duration) {
    const share = 100 * audio.currentTime / audio.duration + '%';
    p.line.style.left = share; p.image.style.setProperty('--at', share);
  }
  p.now.textContent = clock(audio.currentTime);
  p.image.setAttribute('aria-valuenow', audio.currentTime.toFixed(1));
  if (!audio.paused) requestAnimationFrame(() => draw(audio));
};
let pair = null;
const toggle = audio => audio.paused ? audio.play() : audio.pause();
const seek = (audio, seconds) => {
  audio.currentTime = Math.max(0, Math.min(seconds, (audio.duration || 0) - 0.01));
  draw(audio);
};
document.addEventListener('play', event => {
  const audio = event.target;
  if (!parts(audio)) return;
  for (const other of players())
    if (other !== audio && !(pair && pair.includes(audio) && pair.includes(other))) other.pause();
  if (window.riffLive && window.riffLive.on) window.riffLive.stop();
  const p = parts(audio);
  p.box.classList.add('on'); p.button.setAttribute('aria-label', 'pause');
  draw(audio);
}, true);
for (const kind of ['pause', 'ended'])
  document.addEventListener(kind, event => {
    const p = parts(event.target);
    if (!p) return;
    p.box.classList.remove('on'); p.button.setAttribute('aria-label', 'play');
    if (pair && !players().some(each => pair.includes(each) && !each.paused)) endPair();
  }, true);
document.addEventListener('seeked', event => draw(event.target), true);

const endPair = () => {
  if (!pair) return;
  for (const audio of pair) { audio.muted = false; audio.pause(); }
  for (const button of document.querySelectorAll('.riff-both')) button.textContent = 'Play';
  pair = null; tellPair();
};
const chosen = letter => {
  const radio = document.querySelector('.riff-kept .riff-' + letter + ':checked');
  return radio && radio.closest('.riff-card').querySelector('audio');
};
const playPair = button => {
  if (pair) return endPair();
  const a = chosen('a'), b = chosen('b');
  if (!a || !b || a === b) return;
  pair = [a, b];
  a.currentTime = b.currentTime = 0; b.muted = true; a.muted = false;
  a.play(); b.play(); button.textContent = 'Stop'; tellPair();
};
const tellPair = () => {
  for (const button of document.querySelectorAll('.riff-switch'))
    button.textContent = pair && pair[0].muted ? 'Listen to A' : 'Listen to B';
};
const copy = async button => {
  const text = button.parentNode.querySelector('pre').textContent;
  try { await navigator.clipboard.writeText(text); }
  catch { const area = document.createElement('textarea'); area.value = text; document.body.append(area);
    area.select(); document.execCommand('copy'); area.remove(); }
  button.textContent = 'Copied'; setTimeout(() => button.textContent = 'Copy', 1500);
};
// A card's clip goes to another tab, or is kept: the page's hidden button asks for window.riffSent.
const send = button => {
  window.riffSent = button.dataset.clip;
  document.querySelector('#send-' + button.dataset.to).click();
  if (button.dataset.to !== 'keep') window.scrollTo({ top: 0, behavior: 'smooth' });
  else button.textContent = 'Kept';
};
document.addEventListener('click', event => {
  const at = name => event.target.closest('.' + name);
  let found;
  if ((found = at('riff-play'))) toggle(parts(found).audio);
  else if ((found = at('riff-copy'))) copy(found);
  else if ((found = at('riff-send'))) send(found);
  else if ((found = at('riff-both'))) playPair(found);
  else if (at('riff-switch') && pair) { for (const audio of pair) audio.muted = !audio.muted; tellPair(); }
  else if ((found = at('riff-image')) && !found.classList.contains('riff-choose')) {
    const p = parts(found), box = found.getBoundingClientRect();
    if (p) { seek(p.audio, (event.clientX - box.left) / box.width * p.audio.duration); p.audio.play(); }
  }
});
document.addEventListener('change', event => {
  if (event.target.classList.contains('riff-round')) parts(event.target).audio.loop = event.target.checked;
});
document.addEventListener('keydown', event => {
  const image = event.target.closest && event.target.closest('.riff-image');
  if (!image || !parts(image)) return;
  const audio = parts(image).audio, step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
  if (step) { seek(audio, audio.currentTime + step); event.preventDefault(); }
  else if (event.key === ' ' || event.key === 'Enter') { toggle(audio); event.preventDefault(); }
  else if (event.key === 'Home') { seek(audio, 0); event.preventDefault(); }
});

// A part of a spectrogram, chosen by dragging, is written into the fields beside it: in seconds, or in whole bars where
// bars are chosen and known.
let drag = null;
const field = name => document.querySelector('#' + name + ' input[type=number]');
const unit = () => document.querySelector('#riff-unit input:checked');
const inBars = () => unit() && unit().value === 'bars';
const showRegion = (image, from, to) => {
  const mark = image.querySelector('.riff-region');
  mark.hidden = false; mark.style.left = 100 * from + '%'; mark.style.width = 100 * (to - from) + '%';
};
const putNumber = (name, value) => {
  Object.getOwnPropertyDescriptor(HTMLInputElement.prototype, 'value').set.call(field(name), value.toFixed(2));
  for (const kind of ['input', 'change', 'blur']) field(name).dispatchEvent(new Event(kind, { bubbles: true }));
};
const putRegion = (image, from, to) => {
  const seconds = +image.getAttribute('aria-valuemax'), bar = +image.dataset.bar;
  if (inBars() && !bar) document.querySelector('#riff-unit input[value=seconds]').click();
  const bars = inBars() && bar, scale = bars ? seconds / bar : seconds;
  const first = bars ? Math.floor(from * scale + 0.25) : from * scale;
  putNumber('riff-from', first);
  putNumber('riff-to', bars ? Math.max(first + 1, Math.ceil(to * scale - 0.25)) : to * scale);
};
document.addEventListener('pointerdown', event => {
  const image = event.target.closest('.riff-choose');
  if (!image) return;
  const box = image.getBoundingClientRect(), share = (event.clientX - box.left) / box.width;
  drag = { image, box, from: share, to: share }; image.setPointerCapture(event.pointerId); event.preventDefault();
});
document.addEventListener('pointermove', event => {
  if (!drag) return;
  drag.to = Math.max(0, Math.min(1, (event.clientX - drag.box.left) / drag.box.width));
  showRegion(drag.image, Math.min(drag.from, drag.to), Math.max(drag.from, drag.to));
});
document.addEventListener('pointerup', () => {
  if (!drag) return;
  const { image, from, to } = drag, p = parts(image);
  drag = null;
  if (Math.abs(to - from) * image.clientWidth < 4) { seek(p.audio, from * p.audio.duration); return p.audio.play(); }
  putRegion(image, Math.min(from, to), Math.max(from, to));
});
document.addEventListener('input', event => {
  if (!event.target.closest || !event.target.closest('#riff-from, #riff-to, #riff-unit')) return;
  const image = document.querySelector('.riff-choose');
  if (!image || drag) return;
  const bar = inBars() ? +image.dataset.bar : 1, seconds = +image.getAttribute('aria-valuemax');
  const from = +field('riff-from').value * bar / seconds, to = +field('riff-to').value * bar / seconds;
  if (to > from) showRegion(image, Math.min(1, from), Math.min(1, to));
});

// What Gradio leaves without a name.
new MutationObserver(() => {
  const name = (selector, text) => document.querySelectorAll(selector).forEach(node => {
    if (!node.hasAttribute('aria-label')) { node.setAttribute('role', 'img'); node.setAttribute('aria-label', text); }
  });
  name('#spectrogram-editor canvas', 'spectrogram to paint on');
  name('.riff-sound canvas', 'waveform of your sound');
  for (const image of document.querySelectorAll('img:not([alt])')) image.alt = '';
}).observe(document, { childList: true, subtree: true });
})();
