"""Music that comes in parts, on the page: each begins on a bar line of the one before, to the sample, without a gap."""

STREAM = r"""
(() => {
const FADE = 0.012, SOON = 0.12;  // seconds: of a join's fade, and in which nothing new is begun
const feed = { context: null, kind: null, on: false, parts: [], last: null, pending: false, changed: false,
  more: true, made: 0, took: 2, repeats: 0, gaps: 0, joins: [], timer: null };
window.riffLive = feed;
const within = selector => document.querySelector(selector);
const say = text => {
  const line = within('#' + feed.kind + '-now .riff-live-now');
  if (line) line.textContent = text;
};
const end = () => feed.parts.length ? feed.parts[feed.parts.length - 1].until : 0;

feed.begin = kind => {
  feed.stop();
  document.querySelectorAll('.riff-player audio').forEach(audio => audio.pause());
  feed.context = feed.context || new AudioContext();
  feed.context.resume();
  Object.assign(feed, { kind, on: true, parts: [], last: null, pending: false, changed: false, more: true, made: 0,
    repeats: 0, gaps: 0, joins: [] });
  feed.timer = setInterval(tick, 60);
  if (kind === 'live') ask();
  say('Getting the first bars ready');
  within('#' + kind + '-now .riff-live').classList.add('on');
};
feed.stop = () => {
  if (!feed.on) return;
  feed.on = false; clearInterval(feed.timer);
  for (const part of feed.parts) fadeOut(part, feed.context.currentTime + FADE);
  feed.parts = [];
  const box = within('#' + feed.kind + '-now .riff-live');
  if (box) box.classList.remove('on');
  const picture = within('#' + feed.kind + '-now .riff-live-picture');
  if (picture) picture.classList.remove('on');
  say('Stopped');
};
const fadeOut = (part, at) => {
  const begin = Math.max(feed.context.currentTime, at - FADE);
  part.gain.gain.setValueAtTime(1, begin);
  part.gain.gain.linearRampToValueAtTime(0, Math.max(at, begin + 0.001));
  try { part.source.stop(at + 0.002); } catch {}
  part.until = at;
};
// A part's bars are seconds of its sound; it is played from one of them to its end.
const play = (sound, from, at, repeated) => {
  const gain = feed.context.createGain(), source = feed.context.createBufferSource();
  source.buffer = sound.buffer; source.connect(gain).connect(feed.context.destination);
  for (const part of feed.parts) if (part.until > at - FADE && part.at < at) fadeOut(part, at);
  for (const part of feed.parts) if (part.at >= at) { try { part.source.stop(); } catch {} }
  feed.parts = feed.parts.filter(part => part.at < at);
  gain.gain.setValueAtTime(0, at); gain.gain.linearRampToValueAtTime(1, at + 0.002);
  source.start(at, from);
  const lines = sound.bars.filter(bar => bar >= from - 1e-6).map(bar => at + bar - from);
  const beats = sound.beats.map((beat, index) => ({ time: at + beat - from, phase: index % sound.perBar }))
    .filter(beat => beat.time >= at - 1e-6);
  feed.parts.push({ source, gain, at, from, until: lines[lines.length - 1], lines, beats, sound, said: sound.said,
    repeated });
  feed.joins.push({ at, from, repeated: !!repeated, said: sound.said });
};
const join = sound => {
  const now = feed.context.currentTime + SOON;
  let at = end(), from = sound.from;
  if (sound.swap) {
    // On the next beat of the bar's first half, or on the next bar line: what is heard of the walk ends with the bar.
    const beats = feed.parts.flatMap(part => part.beats.filter(beat => beat.time <= part.until + 1e-6 &&
      (beat.phase === 0 || part.sound.perBar === sound.perBar && beat.phase <= sound.perBar / 2)));
    const beat = beats.find(each => each.time >= now);
    if (beat) { at = beat.time; from = sound.beats[beat.phase]; }
  } else if (feed.parts.length && feed.parts[feed.parts.length - 1].repeated) {
    // What was repeated while this was made gives way at its next bar line.
    const lines = feed.parts[feed.parts.length - 1].lines;
    at = lines.find(line => line >= now) || at;
  }
  if (at < now) { if (feed.last) feed.gaps += 1; at = now; }
  play(sound, from, at);
  feed.last = sound; feed.made += 1;
};
const show = (part, now) => {
  const box = within('#' + feed.kind + '-now .riff-live-picture'), image = box.querySelector('img');
  if (image.dataset.of !== part.sound.source) { image.src = part.sound.picture; image.dataset.of = part.sound.source; }
  box.classList.add('on');
  box.querySelector('i').style.left = 100 * (part.from + now - part.at) / part.sound.buffer.duration + '%';
};
const tick = () => {
  if (!feed.on) return;
  const now = feed.context.currentTime, part = [...feed.parts].reverse().find(each => each.at <= now);
  feed.parts = feed.parts.filter(each => each.until > now - 1);
  if (part && part.until > now) {
    const line = [...part.lines].reverse().find(each => each <= now) || part.at;
    const next = part.lines.find(each => each > now) || part.until, beat = 4 * (now - line) / (next - line);
    show(part, now);
    within('#' + feed.kind + '-now .riff-beat').style.opacity = 1 - 0.75 * (beat % 1);
    say(part.said + (feed.pending && feed.changed ? ' · on its way to what you asked' : ''));
  }
  if (feed.last && feed.more && end() - now < 0.4) {
    const bars = feed.last.bars, from = Math.max(feed.last.from, bars[Math.max(0, bars.length - 3)]);
    feed.repeats += 1; play(feed.last, from, Math.max(end(), now + 0.05), true);
  }
  if (feed.last && !feed.more && end() < now) return feed.stop();
  if (feed.kind !== 'live' || feed.pending) return;
  if (feed.changed || (feed.last && end() - now < 1.5 * feed.took + 1)) ask();
};
const ask = () => {
  feed.pending = true; feed.swap = feed.changed; feed.changed = false; feed.asked = performance.now();
  within('#live-next').click();
};
const arrive = async node => {
  const kind = node.dataset.feed;
  if (!feed.on || kind !== feed.kind) return;
  if (!node.dataset.src) { feed.pending = false; return; }
  const bytes = await (await fetch(node.dataset.src)).arrayBuffer();
  const buffer = await feed.context.decodeAudioData(bytes);
  if (!feed.on || kind !== feed.kind) return;
  if (kind === 'live') feed.took = 0.5 * feed.took + 0.5 * (performance.now() - feed.asked) / 1000;
  feed.more = node.dataset.more === '1';
  const beats = node.dataset.beats.split(' ').map(Number), perBar = +node.dataset.perBar;
  const bars = beats.filter((beat, index) => index % perBar === 0);
  join({ buffer, beats, perBar, bars, from: +node.dataset.from, said: node.dataset.said,
    picture: node.dataset.picture, source: node.dataset.src, swap: kind === 'live' && feed.swap });
  feed.pending = false;
};
let queue = Promise.resolve();
new MutationObserver(() => {
  for (const node of document.querySelectorAll('.riff-part:not([data-seen])')) {
    node.dataset.seen = '1';
    queue = queue.then(() => arrive(node)).catch(() => { feed.pending = false; });
  }
  if (within('#live-feed .riff-error') && feed.on && feed.kind === 'live') {
    const text = within('#live-feed .riff-error').textContent;
    feed.stop(); say(text);
  }
}).observe(document, { childList: true, subtree: true });

let patience = null;
const change = () => {
  feed.changed = true;
  if (feed.pending) within('#live-cancel').click();  // what is being made is no longer wanted
};
document.addEventListener('input', event => {
  if (!feed.on || feed.kind !== 'live' || !event.target.closest('#live-controls')) return;
  clearTimeout(patience);
  patience = setTimeout(change, 250);
});
document.addEventListener('click', event => {
  const at = name => event.target.closest('#' + name);
  if (at('live-go')) feed.begin('live');
  else if (at('walk-go') && within('#walk-listen input').checked) feed.begin('walk');
  else if (at('live-stop') || at('walk-stop')) feed.stop();
  else if (event.target.closest('#live-chips button') && feed.on)
    setTimeout(change, 250);
}, true);
})();
"""
