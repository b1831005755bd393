"""How a contact sheet looks, and what moves on it; without the script all is there, only the line stands still."""

STYLE = """
:root { color-scheme: light dark; --ground: #f6f4ef; --card: #ffffff; --ink: #1d1b26; --soft: #66626f; --line: #e4e0d8;
  --accent: #6c3fd1; }
@media (prefers-color-scheme: dark) { :root { --ground: #121019; --card: #1c1926; --ink: #efecf6; --soft: #a59fb5;
  --line: #2d293a; --accent: #b69cff; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 88rem; padding: 0 clamp(.8rem, 3vw, 2.5rem) 3rem; background: var(--ground);
  color: var(--ink); font: 16px/1.45 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
header { display: flex; flex-wrap: wrap; gap: .8rem 2rem; align-items: end; justify-content: space-between;
  padding: clamp(1.4rem, 4vw, 2.8rem) 0 clamp(1rem, 2vw, 1.6rem); }
h1 { margin: 0; font-size: clamp(1.5rem, 4vw, 2.2rem); line-height: 1.15; letter-spacing: -.02em;
  overflow-wrap: anywhere; }
header p { margin: .25rem 0 0; color: var(--soft); }
input { font: inherit; color: inherit; background: var(--card); border: 1px solid var(--line); border-radius: 99px;
  padding: .5rem 1rem; width: 17rem; max-width: 100%; }
main { display: grid; gap: clamp(.8rem, 1.6vw, 1.4rem);
  grid-template-columns: repeat(auto-fill, minmax(min(20rem, 100%), 1fr)); }
article { background: var(--card); border: 1px solid var(--line); border-radius: 14px; overflow: hidden;
  display: flex; flex-direction: column; content-visibility: auto; contain-intrinsic-size: auto 19rem; }
article[hidden] { display: none; }
article:has(audio.on) { border-color: var(--accent); box-shadow: 0 0 0 1px var(--accent); }
.picture { position: relative; background: #0b0a1f; aspect-ratio: 4; cursor: pointer; }
.picture img { display: block; width: 100%; height: 100%; object-fit: fill; }
.picture i { position: absolute; inset: 0 auto 0 0; width: 2px; background: #fff; box-shadow: 0 0 6px #0009;
  opacity: 0; }
.on-air i { opacity: .95; }
.nothing { margin: 0; height: 100%; display: grid; place-items: center; color: #a59fb5; }
.text { display: flex; flex-direction: column; gap: .6rem; flex: 1; padding: .85rem 1rem .8rem; }
h2 { margin: 0; font-size: 1rem; font-weight: 600; line-height: 1.35; overflow-wrap: anywhere;
  display: -webkit-box; -webkit-box-orient: vertical; -webkit-line-clamp: 4; overflow: hidden; }
.facts { display: flex; flex-wrap: wrap; gap: .15rem .9rem; margin: 0; padding: 0; list-style: none; color: var(--soft);
  font-size: .86rem; font-variant-numeric: tabular-nums; }
audio { display: block; width: 100%; height: 40px; margin-top: auto; }
footer { display: flex; gap: 1rem; align-items: baseline; justify-content: space-between;
  font-size: .82rem; color: var(--soft); }
footer > :last-child { margin-left: auto; }
a { color: var(--accent); text-decoration: none; font-variant-numeric: tabular-nums; }
@media (max-width: 40rem) { header, header > input { width: 100%; } }
a:hover { text-decoration: underline; }
details { min-width: 0; flex: 1; }
summary { cursor: pointer; padding: .3rem 0; }
dl { display: grid; grid-template-columns: auto 1fr; gap: .15rem .9rem; margin: .5rem 0 .2rem; }
dt { white-space: nowrap; }
dd { margin: 0; color: var(--ink); white-space: pre-line; overflow-wrap: anywhere; max-height: 9rem; overflow: auto; }
.problem { margin: auto 0 0; color: #c43c3c; font-size: .86rem; overflow-wrap: anywhere; }
.origin { margin: 2rem 0 0; color: var(--soft); font-size: .82rem; }
:focus-visible { outline: 2px solid var(--accent); outline-offset: 2px; }
@media print { audio, input, details { display: none; } article { break-inside: avoid; } }
"""

# One clip at a time; a line that runs through the picture of the one that plays; a touch of the picture plays from
# there; prompts can be searched where there are many.
SCRIPT = """
const players = [...document.querySelectorAll('audio')];
for (const player of players) {
  if (players.length <= 60) player.preload = 'metadata';
  const picture = player.closest('article').querySelector('.picture'), line = picture.querySelector('i');
  const draw = () => {
    if (player.duration) line.style.left = 100 * player.currentTime / player.duration + '%';
    if (!player.paused) requestAnimationFrame(draw);
  };
  player.addEventListener('play', () => {
    for (const other of players) if (other !== player) other.pause();
    player.classList.add('on'); picture.classList.add('on-air'); draw();
  });
  player.addEventListener('pause', () => player.classList.remove('on'));
  player.addEventListener('seeked', draw);
  picture.addEventListener('click', event => {
    const share = event.offsetX / picture.clientWidth;
    const seek = () => { player.currentTime = share * player.duration; player.play(); };
    if (player.duration) seek();
    else { player.addEventListener('loadedmetadata', seek, { once: true }); player.preload = 'auto'; player.load(); }
  });
}
const find = document.querySelector('input'), cards = [...document.querySelectorAll('article')];
if (cards.length > 6) {
  find.hidden = false;
  find.addEventListener('input', () => {
    const words = find.value.toLowerCase().split(/\\s+/);
    for (const card of cards) {
      const text = card.querySelector('.text').textContent.toLowerCase();
      card.hidden = !words.every(word => text.includes(word));
    }
  });
}
"""
