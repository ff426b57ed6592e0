fillHead();
fold();
arrange();
margin(begin);
scroller.focus();
document.documentElement.dataset.ready = "yes";
