// A shop that tracks what its visitor does; `analytics` comes with the script before this one.

const byId = (id) => document.getElementById(id);
const cart = [];

/** Call a method of `analytics`, and say so on the page. */
function tell(method, ...args) {
  const line = document.createElement("li");
  const taken = analytics[method](...args);
  line.textContent = `${method} ${JSON.stringify(args)}${taken === false ? " was not taken" : ""}`;
  byId("events").append(line);
}

function showCart() {
  byId("total").textContent = cart.reduce((sum, { price }) => sum + price, 0).toFixed(2);
  byId("checkout").disabled = !cart.length;
}

byId("products").addEventListener("click", ({ target: { dataset } }) => {
  if (!dataset.sku) return;
  const product = { sku: dataset.sku, price: +dataset.price };
  cart.push(product);
  showCart();
  tell("track", "product_added", product);
});

byId("checkout").addEventListener("click", () => {
  tell("track", "checkout_completed", { total: +byId("total").value, products: cart.splice(0) });
  showCart();
});

byId("sign-in").addEventListener("click", () => tell("identify", "ada", { plan: "pro" }));
byId("sign-out").addEventListener("click", () => tell("reset"));

tell("page", "Shop");
setInterval(() => (byId("stats").textContent = JSON.stringify(analytics.stats())), 500);
