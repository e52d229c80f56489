// Inspects binary PPM images (P6) with a bundle of 'anomalib-defects export', by OpenVINO's runtime for C++:
//     c++ -std=c++17 inspect.cpp -lopenvino -o inspect && ./inspect bundle/model.xml image.ppm
#include <cstdint>
#include <fstream>
#include <iostream>
#include <openvino/openvino.hpp>
#include <vector>

int main(int count, char** words) {
    if (count < 3) return std::cerr << "usage: inspect MODEL.xml IMAGE.ppm ...\n", 2;
    ov::Core core;
    std::shared_ptr<ov::Model> model = core.read_model(words[1]);
    ov::InferRequest request;
    ov::Shape shape;
    for (int index = 2; index < count; ++index) {
        std::ifstream file(words[index], std::ios::binary);
        std::string kind;
        size_t width = 0, height = 0, top = 0;
        file >> kind >> width >> height >> top;
        file.get();
        if (!file || kind != "P6" || top != 255) return std::cerr << words[index] << " is not a binary PPM image\n", 1;
        std::vector<uint8_t> pixels(width * height * 3);  // a camera's buffer, rows of red, green and blue bytes
        if (!file.read(reinterpret_cast<char*>(pixels.data()), pixels.size())) return 1;
        if (shape != ov::Shape{1, height, width, 3}) {  // compiled for one size, a graph is faster
            model->reshape(ov::PartialShape(shape = {1, height, width, 3}));
            request = core.compile_model(model, "CPU", ov::hint::inference_precision(ov::element::f32)).create_infer_request();
        }
        request.set_input_tensor(ov::Tensor(ov::element::u8, shape, pixels.data()));
        request.infer();
        float score = request.get_tensor("pred_score").data<float>()[0];
        bool is_defective = request.get_tensor("pred_label").data<char>()[0];
        std::cout << words[index] << ' ' << score << ' ' << (is_defective ? "defective" : "normal") << '\n';
    }
}
