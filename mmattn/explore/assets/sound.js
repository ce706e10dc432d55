// Playing the sound, all of it or the stretch of one token.
function player(sample, show) {
  const audio = new Audio(sample.sound);
  let until = Infinity, frame = 0;
  const all = el("button", { type: "button", class: "mmx-play" }, "▶ Play");
  const part = el("button", { type: "button", class: "mmx-play", disabled: true }, "▶ Around the token");
  const stop = () => {
    audio.pause();
    cancelAnimationFrame(frame);
    all.textContent = "▶ Play";
    show(null);
  };
  const follow = () => {
    if (audio.ended || audio.currentTime >= until) return stop();
    show(audio.currentTime);
    frame = requestAnimationFrame(follow);
  };
  const play = (from, to) => {
    until = to;
    audio.currentTime = from;
    audio.play().then(() => {
      all.textContent = "■ Stop";
      frame = requestAnimationFrame(follow);
    }, stop);
  };
  all.addEventListener("click", () => (audio.paused ? play(0, Infinity) : stop()));
  let region = [];
  part.addEventListener("click", () => {
    stop();
    // a token is too short to be heard: a fifth of a second around it
    const middle = (region[0] + region[1]) / 2, half = Math.max(0.1, (region[1] - region[0]) / 2);
    play(Math.max(0, middle - half), middle + half);
  });
  const choose = (token) => {
    region = token < 0 ? [] : sample.regions[token];
    part.disabled = !region.length;
  };
  return { root: el("div", { class: "mmx-player" }, all, part), choose, stop };
}
