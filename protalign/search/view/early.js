// Hide the plain tables before they are laid out; show them if the view cannot start.
(() => {
  "use strict";
  const { classList } = document.documentElement;
  classList.add("scripted");
  window.addEventListener("error", () => classList.remove("scripted"));
})();
