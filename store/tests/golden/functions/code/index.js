exports.main_handler = async (event, context) => {
  console.log("node", event.n);
  return { n: event.n };
};
