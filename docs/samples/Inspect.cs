// Inspects binary PPM images (P6) with a bundle of 'anomalib-defects export', by ONNX Runtime 1.24 or later:
//     dotnet add package Microsoft.ML.OnnxRuntime && dotnet run bundle/model.onnx image.ppm
using System.Text;
using Microsoft.ML.OnnxRuntime;
using Microsoft.ML.OnnxRuntime.Tensors;

using var session = new InferenceSession(args[0]);
foreach (string path in args.Skip(1))
{
    byte[] file = File.ReadAllBytes(path);
    int start = 0;
    string Word()
    {
        int end = Array.FindIndex(file, start, value => char.IsWhiteSpace((char)value));
        string word = Encoding.ASCII.GetString(file, start, end - start);
        start = end + 1;
        return word;
    }
    if (Word() != "P6") throw new InvalidDataException($"{path} is not a binary PPM image");
    int width = int.Parse(Word()), height = int.Parse(Word());
    if (Word() != "255") throw new InvalidDataException($"{path} does not have 8 bits");
    // A camera's buffer: rows of red, green and blue bytes.
    var pixels = new DenseTensor<byte>(file.AsMemory(start, width * height * 3), new[] { 1, height, width, 3 });
    using var outputs = session.Run(new[] { NamedOnnxValue.CreateFromTensor("image", pixels) });
    float score = outputs.First(output => output.Name == "pred_score").AsTensor<float>().First();
    bool isDefective = outputs.First(output => output.Name == "pred_label").AsTensor<bool>().First();
    Console.WriteLine($"{path} {score} {(isDefective ? "defective" : "normal")}");
}
