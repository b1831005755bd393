(() => {
const FADE = 0.012, SOON = 0.12;  // seconds: of a join's fade, and in which nothing new is begun
const feed = { context: null, kind: null, on: false, parts: [], last: null, pending: false, wanted: 0,
  asking: 0, got: 0, more: true, made: 0, took: 2, repeats: 0, gaps: 0, joins: [], changes: [],
  timer: null };
window.riffLive = feed;
const within = selector => document.querySelector(selector);
const say = text => {
  const line = within('#' + feed.kind + '-now .riff-live-now');
  if (line) line.textContent = text;
};
const newest = () => feed.parts[feed.parts.length - 1];
const end = () => feed.parts.length ? newest().until : 0;

feed.begin = kind => {
  feed.stop();
  document.querySelectorAll('.riff-player audio').forEach(audio => audio.pause());
  const box = within('#' + kind + '-now .riff-live');
  feed.context = feed.context || new AudioContext({ sampleRate: +box.dataset.rate });
  feed.context.resume();
  Object.assign(feed, { kind, on: true, parts: [], last: null, pending: false, wanted: 0, asking: 0, got: 0, more: true,
    made: 0, repeats: 0, gaps: 0, joins: [], changes: [] });
  feed.timer = setInterval(tick, 60);
  if (kind === 'live') ask();
  say('Getting the first bars ready');
  box.classList.add('on');
};
feed.stop = () => {
  if (!feed.on) return;
  feed.on = false; clearInterval(feed.timer);
  for (const part of feed.parts) fadeOut(part, feed.context.currentTime + FADE);
  feed.parts = [];
  const box = within('#' + feed.kind + '-now .riff-live');
  if (box) box.classList.remove('on');
  const image = within('#' + feed.kind + '-now .riff-live-image');
  if (image) image.classList.remove('on');
  say('Stopped');
};
const fadeOut = (part, at) => {
  const begin = Math.max(feed.context.currentTime, at - FADE);
  part.gain.gain.setValueAtTime(1, begin);
  part.gain.gain.linearRampToValueAtTime(0, Math.max(at, begin + 0.001));
  try { part.source.stop(at + 0.002); } catch {}
  part.until = at;
};
// A part's bars and beats are seconds of its sound. What is seamless begins with the sample after the last one.
const play = (sound, from, at, { repeated = false, seamless = false } = {}) => {
  if (!seamless) at = Math.ceil(at * feed.context.sampleRate) / feed.context.sampleRate;
  const gain = feed.context.createGain(), source = feed.context.createBufferSource();
  source.buffer = sound.buffer; source.connect(gain).connect(feed.context.destination);
  if (!seamless) {
    for (const part of feed.parts) if (part.until > at - FADE && part.at < at) fadeOut(part, at);
    for (const part of feed.parts) if (part.at >= at) { try { part.source.stop(); } catch {} }
    feed.parts = feed.parts.filter(part => part.at < at);
    gain.gain.setValueAtTime(0, at); gain.gain.linearRampToValueAtTime(1, at + 0.002);
  }
  source.start(at, from);
  const lines = sound.bars.filter(bar => bar >= from - 1e-6).map(bar => at + bar - from);
  const beats = sound.beats.map((beat, index) => ({ time: at + beat - from, phase: index % sound.perBar }))
    .filter(beat => beat.time >= at - 1e-6);
  feed.parts.push({ source, gain, at, from, until: at + sound.until - from, lines, beats, sound, text: sound.text,
    repeated });
  feed.joins.push({ came: feed.context.currentTime, at, from, until: at + sound.until - from, repeated, seamless,
    text: sound.text, beats: sound.beats, source: sound.source });
};
const join = sound => {
  const now = feed.context.currentTime + SOON;
  let at = end(), seamless = feed.kind === 'live' && feed.parts.length > 0;
  if (feed.kind === 'walk' && feed.parts.length && newest().repeated) {
    // What was repeated while this was made gives way at its next bar line.
    at = newest().lines.find(line => line >= now) || at;
  }
  if (at < feed.context.currentTime + 0.02) { if (feed.last) feed.gaps += 1; at = now; seamless = false; }
  play(sound, sound.from, at, { seamless });
  feed.last = sound; feed.made += 1;
};
// Nothing new has come: what is heard is heard again, on the beat.
const again = now => {
  const { bars } = feed.last, live = feed.kind === 'live', part = newest();
  const from = live ? 0 : Math.max(feed.last.from, bars[Math.max(0, bars.length - 3)]);
  const at = live && part ? part.at - part.from + bars[bars.length - 1] - bars[0] : end();
  feed.repeats += 1;
  play(feed.last, from, Math.max(at, now + 0.05), { repeated: true });
};
const show = (part, now) => {
  const box = within('#' + feed.kind + '-now .riff-live-image'), image = box.querySelector('img');
  if (image.dataset.of !== part.sound.source) { image.src = part.sound.image; image.dataset.of = part.sound.source; }
  box.classList.add('on');
  box.querySelector('i').style.left = 100 * (part.from + now - part.at) / part.sound.buffer.duration + '%';
};
const tick = () => {
  if (!feed.on) return;
  const now = feed.context.currentTime, part = [...feed.parts].reverse().find(each => each.at <= now);
  feed.parts = feed.parts.filter(each => each.until > now - 1);
  if (part && part.until > now) {
    const times = feed.parts.flatMap(each => each.beats).map(each => each.time);
    const beat = Math.max(...times.filter(each => each <= now)), next = Math.min(...times.filter(each => each > now));
    show(part, now);
    const since = next < Infinity && beat > -Infinity ? (now - beat) / (next - beat) : 0;
    within('#' + feed.kind + '-now .riff-beat').style.opacity = 1 - 0.75 * since;
    say(part.text + (feed.got < feed.wanted ? ' · changing at the next bar' : ''));
  }
  if (feed.last && feed.more && end() - now < 0.2) again(now);
  if (feed.last && !feed.more && end() < now) return feed.stop();
  if (feed.kind !== 'live' || feed.pending) return;
  if (!feed.last || end() - now < lookahead()) ask();
};
// As riff.tasks.stream has it: a bar is asked for as late as is safe, so that it is of what is asked for then.
const lookahead = () => {
  const { bars } = feed.last, bar = bars[bars.length - 1] - bars[0];
  return Math.min(Math.max(1.5 * feed.took + SOON, 0.5 * bar), bar);
};
const ask = () => {
  feed.pending = true; feed.asking = feed.wanted; feed.asked = performance.now();
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
  feed.got = feed.asking;
  join({ buffer, beats, perBar, bars, from: +node.dataset.from, until: kind === 'live' ? buffer.duration :
    +node.dataset.until, text: node.dataset.text, image: node.dataset.image, source: node.dataset.src });
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
  feed.wanted += 1;
  feed.changes.push({ at: feed.context.currentTime, wanted: feed.wanted });
  const left = feed.last ? end() - feed.context.currentTime : Infinity;
  if (feed.pending && left > 1.2 * feed.took + SOON) within('#live-cancel').click();  // no longer wanted
};
document.addEventListener('input', event => {
  if (!feed.on || feed.kind !== 'live' || !event.target.closest('#live-controls, #live-prompt')) return;
  clearTimeout(patience);
  patience = setTimeout(change, 150);
});
document.addEventListener('click', event => {
  const at = name => event.target.closest('#' + name);
  if (at('live-go')) feed.begin('live');
  else if (at('walk-go') && within('#walk-listen input').checked) feed.begin('walk');
  else if (at('live-stop') || at('walk-stop')) feed.stop();
  else if (event.target.closest('#live-chips button') && feed.on)
    setTimeout(change, 150);
}, true);
})();
