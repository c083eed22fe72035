exports.main_handler = async (event, context) => {
  const name = event.name ?? "world";
  console.log(`greeting ${name}`); // hanshu logs shows it
  return { message: `${process.env.GREETING}, ${name}!` };
};
