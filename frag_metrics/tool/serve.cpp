// SPDX-License-Identifier: MIT
// Numbers of many processes for Prometheus to scrape, and their pages for people.
#include <charconv>
#include <fmt/format.h>
#include <httplib.h>
#include <sys/socket.h>

#include "../capture.h"
#include "../export.h"
#include "html.h"
#include "print.h"

namespace ashlar::frag {

namespace {

std::vector<std::string> names_of(const std::vector<std::string>& targets) {
  if (!targets.empty()) return targets;
  std::vector<std::string> names;
  for (const std::int64_t pid : processes_on_ashlar()) names.push_back(std::to_string(pid));
  return names;
}

// Processes come and go: who is gone, or may not be read, is left out.
std::vector<Report> reports_of(const std::vector<std::string>& targets) {
  std::vector<Report> reports;
  for (const std::string& name : names_of(targets)) {
    try {
      reports.push_back(load_report(name));
    } catch (const Error&) {
    }
  }
  return reports;
}

std::string index_page(const std::vector<Report>& reports) {
  std::string page =
      "<!DOCTYPE html><meta charset=utf-8><title>Ashlar</title><h1>Ashlar</h1>"
      "<p><a href=/metrics>metrics</a><ul>";
  for (const Report& r : reports) {
    std::string name;
    for (const char c : r.program) name += std::isalnum(static_cast<unsigned char>(c)) ? c : '_';
    page += fmt::format("<li><a href=/report/{}>{} {}</a>", r.pid, r.pid, name);
  }
  return page + "</ul>";
}

}  // namespace

int run_serve(const std::string& listen, const std::vector<std::string>& targets, bool json) {
  const std::size_t colon = listen.rfind(':');
  int port = -1;
  if (colon != std::string::npos) {
    const char* const end = listen.data() + listen.size();
    if (std::from_chars(listen.data() + colon + 1, end, port).ptr != end) port = -1;
  }
  if (port < 0 || port > 65535) throw Error(listen + ": not ADDRESS:PORT");
  const std::string address = listen.substr(0, colon);
  for (const std::string& name : targets) {
    if (!is_pid(name)) throw Error(fmt::format("\"{}\": not the id of a process", name));
  }

  httplib::Server server;
  // Its own options would let a second server have the same port, and half of the answers.
  server.set_socket_options([](int socket) {
    const int yes = 1;
    ::setsockopt(socket, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
  });
  // So long, who asks for half a page keeps a worker from others.
  server.set_read_timeout(std::chrono::seconds(1));
  server.Get("/metrics", [&](const httplib::Request&, httplib::Response& response) {
    response.set_content(prometheus_text(reports_of(targets)),
                         "text/plain; version=0.0.4; charset=utf-8");
  });
  server.Get("/", [&](const httplib::Request&, httplib::Response& response) {
    response.set_content(index_page(reports_of(targets)), "text/html");
  });
  server.Get(R"(/report/(\d+))", [&](const httplib::Request& request, httplib::Response& response) {
    const std::string name = request.matches[1];
    const std::vector<std::string> names = names_of(targets);
    if (std::ranges::find(names, name) == names.end()) {
      response.status = 404;
      return;
    }
    const std::unique_ptr<Target> target = open_target(name);
    const Snapshot snapshot = capture(*target);
    response.set_content(
        html_page(snapshot, make_report(snapshot), {}, sites_of(*target, name, snapshot)),
        "text/html");
  });
  server.set_exception_handler(
      [](const httplib::Request&, httplib::Response& response, std::exception_ptr) {
        response.status = 503;
        response.set_content("it cannot be read now\n", "text/plain");
      });
  const int bound = port == 0 ? server.bind_to_any_port(address.c_str())
                    : server.bind_to_port(address.c_str(), port) ? port
                                                                 : -1;
  if (bound < 0) throw Error(listen + ": cannot listen there");
  const std::string url = fmt::format("http://{}:{}/metrics", address, bound);
  if (json) {
    fmt::print("{}\n", json_text({{"schema", kSchema}, {"listening", url}}));
  } else {
    fmt::print("listening on {}\n", url);
  }
  std::fflush(stdout);
  return server.listen_after_bind() ? kFine : kFailed;
}

}  // namespace ashlar::frag
