// Before the first paint: theme and language as they were chosen, so that nothing flashes.
(function () {
  var root = document.documentElement;
  try {
    var theme = localStorage.getItem('shipwatch.theme');
    if (theme === 'light' || theme === 'dark') root.dataset.theme = theme;
    var language = localStorage.getItem('shipwatch.language') || navigator.language || 'en';
    root.lang = /^zh/i.test(language) ? 'zh-CN' : 'en';
  } catch (_storageIsOff) {
    // The system's theme and the page's language stay.
  }
})();
