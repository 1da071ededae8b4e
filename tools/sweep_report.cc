#include "tools/sweep_report.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <ranges>
#include <string_view>

#include "schema/base/error.h"

namespace taskpress {
namespace {

// Bits that differ by rounding only must not decide who is on the front of a plot that starts here.
constexpr double kLeastKl = 1e-9;

std::vector<size_t> BySize(const Sweep& sweep) {
  std::vector<size_t> order;
  for (size_t i = 0; i < sweep.rows.size(); ++i) order.push_back(i);
  std::ranges::stable_sort(order, [&](size_t a, size_t b) {
    const SweepRow& left = sweep.rows[a];
    const SweepRow& right = sweep.rows[b];
    if (left.error.empty() != right.error.empty()) return left.error.empty();
    return std::pair(left.bytes, left.kl_mean) < std::pair(right.bytes, right.kl_mean);
  });
  return order;
}

bool HasSpeed(const Sweep& sweep) {
  return std::ranges::any_of(sweep.rows, [](const SweepRow& row) { return row.decode_tokens_per_s.has_value(); });
}

std::string Speed(const std::optional<double>& tokens_per_s) { return tokens_per_s ? Format("{:.1f}", *tokens_per_s) : "-"; }

// The columns of both tables.
std::vector<std::string> Titles(bool speed) {
  std::vector<std::string> titles = {"recipe", "bytes", "bits per weight", "KL mean (nats)", "KL 99 %", "top-1", "perplexity ratio"};
  if (speed) titles.insert(titles.end(), {"prefill tok/s", "decode tok/s"});
  return titles;
}

std::vector<std::string> Cells(const SweepRow& row, bool speed) {
  if (!row.error.empty()) return {row.recipe, row.error};
  std::vector<std::string> cells = {row.recipe,
                                    Format("{}", row.bytes),
                                    Format("{:.3f}", row.bits_per_weight),
                                    Format("{:.6f}", row.kl_mean),
                                    Format("{:.6f}", row.kl_p99),
                                    Format("{:.4f}", row.top1_agreement),
                                    Format("{:.5f}", row.perplexity_ratio)};
  if (speed) cells.insert(cells.end(), {Speed(row.prefill_tokens_per_s), Speed(row.decode_tokens_per_s)});
  return cells;
}

std::string Introduction(const Sweep& sweep) {
  return Format("{}, {} positions of {}{}. Against the checkpoint's floats; the front of size and divergence is in bold.", sweep.checkpoint,
                sweep.positions, sweep.text, sweep.calibration.empty() ? std::string() : Format(", calibrated with {}", sweep.calibration));
}

std::string Escaped(std::string_view text) {
  std::string escaped;
  for (const char c : text) {
    switch (c) {
      case '&':
        escaped += "&amp;";
        break;
      case '<':
        escaped += "&lt;";
        break;
      case '>':
        escaped += "&gt;";
        break;
      case '"':
        escaped += "&quot;";
        break;
      default:
        escaped += c;
    }
  }
  return escaped;
}

// A bar would end a cell of a Markdown table, a line break its row.
std::string Cell(std::string_view text) {
  std::string cell;
  for (const char c : text) cell += c == '|' ? "\\|" : c == '\n' ? " " : std::string(1, c);
  return cell;
}

// --- plot --------------------------------------------------------------------------------------------------------------------------------

constexpr double kWidth = 860;
constexpr double kHeight = 460;
constexpr double kLeft = 80;
constexpr double kRight = 170;  // room for the names of points
constexpr double kTop = 20;
constexpr double kBottom = 50;

// Millions of bytes to the right, decades of divergence upwards.
class Axes {
 public:
  explicit Axes(const Sweep& sweep) {
    for (const SweepRow& row : sweep.rows) {
      if (!row.error.empty()) continue;
      const double x = static_cast<double>(row.bytes) / 1e6;
      const double y = std::log10(std::max(row.kl_mean, kLeastKl));
      x_min_ = any_ ? std::min(x_min_, x) : x;
      x_max_ = any_ ? std::max(x_max_, x) : x;
      y_min_ = any_ ? std::min(y_min_, y) : y;
      y_max_ = any_ ? std::max(y_max_, y) : y;
      any_ = true;
    }
    const double margin = std::max((x_max_ - x_min_) * 0.05, x_max_ * 0.01);
    x_min_ = std::max(0.0, x_min_ - margin);
    x_max_ += margin;
    y_min_ = std::floor(y_min_);
    y_max_ = std::max(std::ceil(y_max_), y_min_ + 1);
  }

  [[nodiscard]] bool any() const { return any_; }
  [[nodiscard]] double X(double megabytes) const { return kLeft + (megabytes - x_min_) / (x_max_ - x_min_) * (kWidth - kLeft - kRight); }
  [[nodiscard]] double Y(double decades) const { return kTop + (y_max_ - decades) / (y_max_ - y_min_) * (kHeight - kTop - kBottom); }
  [[nodiscard]] double X(const SweepRow& row) const { return X(static_cast<double>(row.bytes) / 1e6); }
  [[nodiscard]] double Y(const SweepRow& row) const { return Y(std::log10(std::max(row.kl_mean, kLeastKl))); }

  // Round numbers, about six.
  [[nodiscard]] std::vector<double> XTicks() const {
    const double rough = (x_max_ - x_min_) / 6;
    const double power = std::pow(10, std::floor(std::log10(rough)));
    double step = 10 * power;
    for (const double factor : {1.0, 2.0, 5.0}) {
      if (factor * power >= rough) {
        step = factor * power;
        break;
      }
    }
    std::vector<double> ticks;
    for (double tick = std::ceil(x_min_ / step) * step; tick <= x_max_; tick += step) ticks.push_back(tick);
    return ticks;
  }
  [[nodiscard]] std::vector<double> YTicks() const {
    std::vector<double> ticks;
    for (double tick = y_min_; tick <= y_max_; tick += 1) ticks.push_back(tick);
    return ticks;
  }

 private:
  bool any_ = false;
  double x_min_ = 0;
  double x_max_ = 1;
  double y_min_ = -1;
  double y_max_ = 0;
};

std::string Grid(const Axes& axes) {
  std::string svg;
  for (const double tick : axes.XTicks()) {
    const double x = axes.X(tick);
    svg += Format("<line class=\"grid\" x1=\"{0:.1f}\" x2=\"{0:.1f}\" y1=\"{1:.1f}\" y2=\"{2:.1f}\"/>\n", x, kTop, kHeight - kBottom);
    svg += Format("<text x=\"{:.1f}\" y=\"{:.1f}\" text-anchor=\"middle\">{:.6g}</text>\n", x, kHeight - kBottom + 18, tick);
  }
  for (const double tick : axes.YTicks()) {
    const double y = axes.Y(tick);
    svg += Format("<line class=\"grid\" x1=\"{1:.1f}\" x2=\"{2:.1f}\" y1=\"{0:.1f}\" y2=\"{0:.1f}\"/>\n", y, kLeft, kWidth - kRight);
    svg += Format("<text x=\"{:.1f}\" y=\"{:.1f}\" text-anchor=\"end\">{:.6g}</text>\n", kLeft - 8, y + 4, std::pow(10, tick));
  }
  svg += Format("<text x=\"{:.1f}\" y=\"{:.1f}\" text-anchor=\"middle\">size of the bundle, MB</text>\n", (kLeft + kWidth - kRight) / 2,
                kHeight - 8);
  svg += Format("<text transform=\"translate(16 {:.1f}) rotate(-90)\" text-anchor=\"middle\">KL divergence, nats</text>\n",
                (kTop + kHeight - kBottom) / 2);
  return svg;
}

std::string Plot(const Sweep& sweep, const std::vector<bool>& front) {
  const Axes axes(sweep);
  if (!axes.any()) return "";
  std::string svg = Format("<svg viewBox=\"0 0 {} {}\" role=\"img\" aria-label=\"size against divergence\">\n", kWidth, kHeight);
  svg += Grid(axes);
  std::string line;
  std::string points;
  for (const size_t i : BySize(sweep)) {
    const SweepRow& row = sweep.rows[i];
    if (!row.error.empty()) continue;
    const double x = axes.X(row);
    const double y = axes.Y(row);
    if (front[i]) line += Format("{:.1f},{:.1f} ", x, y);
    points += Format("<circle class=\"{}\" cx=\"{:.1f}\" cy=\"{:.1f}\" r=\"5\"><title>{}: {} bytes, KL {:.6f}</title></circle>\n",
                     front[i] ? "front" : "behind", x, y, Escaped(row.recipe), row.bytes, row.kl_mean);
    points += Format("<text x=\"{:.1f}\" y=\"{:.1f}\">{}</text>\n", x + 9, y + 4, Escaped(row.recipe));
  }
  if (!line.empty()) line.pop_back();
  return svg + Format("<polyline class=\"front\" points=\"{}\"/>\n{}</svg>\n", line, points);
}

std::string HtmlTable(const Sweep& sweep, const std::vector<bool>& front) {
  const bool speed = HasSpeed(sweep);
  std::string html = "<table>\n<tr>";
  for (const std::string& title : Titles(speed)) html += Format("<th>{}</th>", Escaped(title));
  html += "</tr>\n";
  for (const size_t i : BySize(sweep)) {
    const std::vector<std::string> cells = Cells(sweep.rows[i], speed);
    html += front[i] ? "<tr class=\"front\">" : "<tr>";
    for (const std::string& cell : cells) {
      const bool wide = !sweep.rows[i].error.empty() && &cell != &cells.front();
      html += Format("<td{}>{}</td>", wide ? Format(" colspan=\"{}\"", Titles(speed).size() - 1) : "", Escaped(cell));
    }
    html += "</tr>\n";
  }
  return html + "</table>\n";
}

constexpr std::string_view kStyle = R"(
:root { color-scheme: light dark; --ink: #1a1a1a; --faint: #d8d8d8; --paper: #ffffff; --accent: #0b62c4; --behind: #8a8a8a; }
@media (prefers-color-scheme: dark) { :root { --ink: #e8e8e8; --faint: #3a3a3a; --paper: #161616; --accent: #6cb0ff; --behind: #909090; } }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper); max-width: 900px; margin: 2em auto; padding: 0 1em; }
svg { width: 100%; height: auto; } svg text { font: 12px system-ui, sans-serif; fill: var(--ink); }
.grid { stroke: var(--faint); } circle.front { fill: var(--accent); } circle.behind { fill: none; stroke: var(--behind); stroke-width: 2; }
polyline.front { fill: none; stroke: var(--accent); stroke-width: 1.5; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; } th, td { padding: .2em .7em; text-align: right; border-bottom: 1px solid var(--faint); }
th:first-child, td:first-child { text-align: left; } tr.front td { font-weight: 600; }
)";

}  // namespace

std::vector<bool> ParetoFront(const std::vector<SweepRow>& rows) {
  std::vector<bool> front;
  for (const SweepRow& row : rows) {
    const bool beaten = std::ranges::any_of(rows, [&](const SweepRow& other) {
      if (!other.error.empty()) return false;
      const bool no_worse = other.bytes <= row.bytes && other.kl_mean <= row.kl_mean;
      return no_worse && (other.bytes < row.bytes || other.kl_mean < row.kl_mean);
    });
    front.push_back(row.error.empty() && !beaten);
  }
  return front;
}

std::string SweepMarkdown(const Sweep& sweep) {
  const bool speed = HasSpeed(sweep);
  const std::vector<bool> front = ParetoFront(sweep.rows);
  std::string text = Introduction(sweep) + "\n\n|";
  std::string rule = "|";
  for (const std::string& title : Titles(speed)) {
    text += Format(" {} |", title);
    rule += title == "recipe" ? "---|" : "---:|";
  }
  text += "\n" + rule + "\n";
  for (const size_t i : BySize(sweep)) {
    std::vector<std::string> cells = Cells(sweep.rows[i], speed);
    if (front[i]) cells.front() = "**" + cells.front() + "**";
    text += "|";
    for (const std::string& cell : cells) text += Format(" {} |", Cell(cell));
    text += "\n";
  }
  return text;
}

OrderedJson SweepJson(const Sweep& sweep) {
  const std::vector<bool> front = ParetoFront(sweep.rows);
  OrderedJson rows = OrderedJson::array();
  for (size_t i = 0; i < sweep.rows.size(); ++i) {
    const SweepRow& row = sweep.rows[i];
    OrderedJson json{{"recipe", row.recipe}};
    if (!row.error.empty()) {
      json["error"] = row.error;
      rows.push_back(std::move(json));
      continue;
    }
    json["bytes"] = row.bytes;
    json["bits_per_weight"] = row.bits_per_weight;
    json["kl_mean"] = row.kl_mean;
    json["kl_p99"] = row.kl_p99;
    json["top1_agreement"] = row.top1_agreement;
    json["perplexity_ratio"] = row.perplexity_ratio;
    json["seconds"] = row.seconds;
    if (row.prefill_tokens_per_s) json["prefill_tokens_per_s"] = *row.prefill_tokens_per_s;
    if (row.decode_tokens_per_s) json["decode_tokens_per_s"] = *row.decode_tokens_per_s;
    json["pareto"] = static_cast<bool>(front[i]);
    rows.push_back(std::move(json));
  }
  return {{"checkpoint", sweep.checkpoint},
          {"text", sweep.text},
          {"calibration", sweep.calibration},
          {"positions", sweep.positions},
          {"rows", std::move(rows)}};
}

std::string SweepHtml(const Sweep& sweep) {
  const std::vector<bool> front = ParetoFront(sweep.rows);
  return Format(
      "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n<meta name=\"viewport\" content=\"width=device-width\">\n"
      "<title>Recipes for {}</title>\n<style>{}</style>\n<h1>Recipes for {}</h1>\n<p>{}</p>\n{}{}</html>\n",
      Escaped(sweep.checkpoint), kStyle, Escaped(sweep.checkpoint), Escaped(Introduction(sweep)), Plot(sweep, front),
      HtmlTable(sweep, front));
}

}  // namespace taskpress
