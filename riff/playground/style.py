"""The page's style sheet, in Gradio's own colour variables so that day and night both hold."""

CSS = """
:root, .dark { --riff-night: #0b0a1f; }
.dark { --color-accent: #b69cff; }
.gradio-container { width: 100% !important; max-width: min(72rem, 100vw) !important; min-width: 0 !important;
  margin: 0 auto !important; padding: 0 clamp(.5rem, 3vw, 2rem) !important; overflow-x: clip; }
.gradio-container > .main { padding-left: 0 !important; padding-right: 0 !important; }
.gradio-container > .main, .gradio-container main { width: 100% !important; max-width: 100% !important;
  min-width: 0 !important; }
[id$="-status"] .error, [id$="-status"] .clear-status { display: none; }
[id$="-status"] .translucent { background: none !important; }
.riff-head { display: flex; flex-wrap: wrap; gap: .2rem 1rem; align-items: baseline; padding: 1.1rem 0 .1rem; }
.riff-head h1 { margin: 0; font-size: 2rem; letter-spacing: -.03em; line-height: 1.1; font-weight: 750; }
.riff-head p { margin: 0; color: var(--body-text-color-subdued); }
.riff-chips { gap: .4rem !important; flex-wrap: wrap !important; }
.riff-chips button { flex: 0 1 auto !important; width: auto !important; min-width: 0 !important;
  border-radius: 99px !important; font-weight: 450 !important;
  border: 1px solid var(--border-color-primary) !important; padding: .3rem .8rem !important; }
.riff-row { align-items: end; }
.riff-status { min-height: 2.4rem; }
footer { display: none !important; }
.riff-dice::before { content: ""; width: 1.05rem; height: 1.05rem; margin-right: .45rem; border: 2px solid;
  border-radius: .3rem; background: radial-gradient(circle, currentColor 30%, transparent 34%) 0 0 / 50% 50%; }
.riff-progress { display: grid; gap: .35rem; font-size: .92rem; color: var(--body-text-color-subdued);
  font-variant-numeric: tabular-nums; }
.riff-progress > div { height: 6px; border-radius: 9px; background: var(--border-color-primary); overflow: hidden; }
.riff-progress i { display: block; height: 100%; border-radius: 9px; background: var(--color-accent);
  transition: width .25s linear; }
.riff-progress.busy i { width: 25%; animation: riff-busy 1.4s ease-in-out infinite alternate; }
@keyframes riff-busy { to { transform: translateX(300%) } }
.riff-error { color: #c43c3c; margin: .2rem 0; overflow-wrap: anywhere; }
.dark .riff-error { color: #ff8d8d; }
.riff-empty { display: grid; place-items: center; text-align: center; min-height: 15rem; border-radius: 14px;
  padding: 1rem;
  border: 1px dashed var(--border-color-primary); color: var(--body-text-color-subdued); }
.riff-card { background: var(--block-background-fill); border: 1px solid var(--border-color-primary);
  border-radius: 14px;
  overflow: hidden; padding: 0 0 .9rem; }
.riff-card > :not(.riff-player) { margin-left: 1rem; margin-right: 1rem; }
.riff-card h3 { margin: .3rem 1rem .2rem; font-size: 1rem; font-weight: 600; line-height: 1.35;
  overflow-wrap: anywhere; }
.riff-player .riff-picture, .riff-live-picture { position: relative; height: clamp(8rem, 22vw, 13rem);
  background: var(--riff-night);
  cursor: pointer; overflow: hidden; touch-action: pan-y; }
.riff-picture img { display: block; width: 100%; height: 100%; object-fit: fill; margin: 0; pointer-events: none; }
.riff-picture[style]::after { content: ""; position: absolute; inset: 0; pointer-events: none; opacity: .5;
  background: repeating-linear-gradient(90deg, #fff 0 1px, transparent 1px var(--bar)); }
.riff-picture i { position: absolute; top: 0; bottom: 0; left: 0; width: 2px; background: #fff; z-index: 2;
  box-shadow: 0 0 8px #fff8; pointer-events: none; opacity: 0; }
.riff-player.on i, .riff-picture:focus-visible i { opacity: 1; }
.riff-choose { cursor: crosshair !important; user-select: none; }
.riff-region { position: absolute; top: 0; bottom: 0; background: #ffffff3d; border: solid #fff; border-width: 0 2px;
  pointer-events: none; z-index: 1; }
.riff-region[hidden] { display: none; }
.riff-bar { display: flex; align-items: center; gap: .8rem; padding: .7rem 1rem .2rem; }
.riff-play { width: 2.9rem; height: 2.9rem; border-radius: 50%; border: 0; background: var(--color-accent);
  cursor: pointer;
  display: grid; place-items: center; flex: none; }
.riff-play::before { content: ""; width: 0; height: 0; margin-left: .2rem; border: solid transparent;
  border-width: .5rem 0 .5rem .8rem; border-left-color: #fff; }
.riff-player.on .riff-play::before { width: .8rem; height: .95rem; margin: 0; border: solid #fff;
  border-width: 0 .26rem; }
.dark .riff-play::before { border-left-color: #14101f; }
.dark .riff-player.on .riff-play::before { border-color: #14101f; }
.riff-time { font-variant-numeric: tabular-nums; color: var(--body-text-color-subdued); }
.riff-loop { margin-left: auto; display: flex; gap: .4rem; align-items: center;
  color: var(--body-text-color-subdued); }
.riff-facts { display: flex; flex-wrap: wrap; gap: .1rem .9rem; margin: 0 1rem .5rem !important;
  padding: 0 !important;
  list-style: none !important; font-size: .88rem; color: var(--body-text-color-subdued);
  font-variant-numeric: tabular-nums; }
.riff-facts li { margin: 0; }
.riff-note { margin: .1rem 1rem .5rem; font-size: .9rem; color: #9a6700; }
.dark .riff-note { color: #e3b341; }
.riff-files { display: flex; flex-wrap: wrap; gap: .4rem .5rem; align-items: center; margin-top: .3rem;
  margin-bottom: .6rem; }
.riff-files > span { color: var(--body-text-color-subdued); font-size: .88rem; margin-right: .2rem; }
.riff-files label { display: flex; gap: .25rem; align-items: center; font-weight: 600; }
.riff-files a { padding: .22rem .7rem; border: 1px solid var(--border-color-primary); border-radius: 99px;
  font-size: .82rem;
  color: var(--body-text-color) !important; text-decoration: none !important; }
.riff-files a:hover { border-color: var(--color-accent); }
.riff-files input[type=radio], .riff-loop input { border: 1px solid var(--body-text-color-subdued) !important; }
.riff-code summary { cursor: pointer; padding: .25rem 0; color: var(--body-text-color-subdued); font-size: .9rem; }
.riff-code pre { margin: .2rem 0 .4rem; padding: .7rem .9rem; border-radius: 8px;
  background: var(--background-fill-secondary);
  border: 1px solid var(--border-color-primary); white-space: pre-wrap; overflow-wrap: anywhere; font-size: .82rem;
  font-family: ui-monospace, monospace; }
.riff-copy, .riff-both, .riff-switch { border: 1px solid var(--border-color-primary); border-radius: 99px;
  cursor: pointer;
  padding: .3rem .9rem; background: var(--block-background-fill); color: var(--body-text-color); font-size: .88rem; }
.riff-both { background: var(--color-accent); border-color: transparent; color: #fff; }
.dark .riff-both { color: #14101f; }
.riff-kept h2 { font-size: 1.1rem; margin: 1rem 0 .5rem; }
.riff-kept > div:last-child { display: grid; gap: .9rem;
  grid-template-columns: repeat(auto-fill, minmax(min(19rem, 100%), 1fr)); }
.riff-kept .riff-picture { height: 6.5rem; }
.riff-compare { display: flex; flex-wrap: wrap; align-items: center; gap: .6rem; margin-bottom: .8rem; }
.riff-compare small { color: var(--body-text-color-subdued); }
.riff-two { display: grid; gap: .9rem; grid-template-columns: repeat(auto-fit, minmax(min(20rem, 100%), 1fr)); }
.riff-two h4, .riff-card > h4 { margin: .6rem 1rem .5rem; font-size: .85rem; text-transform: uppercase;
  letter-spacing: .06em;
  color: var(--body-text-color-subdued); }
.riff-lane { width: 100%; height: auto; display: block; border-radius: 14px; }
.riff-live { display: flex; gap: .8rem; align-items: center; padding: .6rem .2rem;
  color: var(--body-text-color-subdued); }
.riff-live-picture { border-radius: 14px; cursor: default !important; height: clamp(7rem, 18vw, 11rem); }
.riff-live-picture:not(.on) { display: none; }
.riff-live-picture.on > i { opacity: 1; }
.riff-beat { width: .9rem; height: .9rem; border-radius: 50%; background: var(--color-accent); opacity: .25;
  flex: none; }
:focus-visible { outline: 2px solid var(--color-accent) !important; outline-offset: 2px; }
@media (max-width: 40rem) { .riff-head h1 { font-size: 1.6rem; } .riff-files a { padding: .45rem .8rem; } }
@media (prefers-reduced-motion: reduce) { .riff-progress.busy i { animation: none; } }
"""
