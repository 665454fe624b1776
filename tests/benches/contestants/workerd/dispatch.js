// The dispatch Worker: hands the request on and the answer back, untouched.
export default {
  fetch(request, env) {
    return env.USER.fetch(request);
  },
};
