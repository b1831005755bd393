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
    const words = find.value.toLowerCase().split(/\s+/);
    for (const card of cards) {
      const text = card.querySelector('.text').textContent.toLowerCase();
      card.hidden = !words.every(word => text.includes(word));
    }
  });
}
