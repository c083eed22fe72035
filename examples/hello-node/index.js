// Greets whoever is named.
exports.main_handler = async (event, context) => {
  const name = event.name ?? "world";
  console.log(`greeting ${name} as ${context.request_id}`);
  return { message: `hello, ${name}!` };
};
